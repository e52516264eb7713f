#include "receiver/cli/doctor_channel.h"

#include <stdlib.h>

#include "protocol/base/bytes.h"
#include "protocol/base/err.h"
#include "protocol/wire/record.h"
#include "receiver/cli/app.h"
#include "receiver/cli/options.h"
#include "receiver/host/doctor.h"
#include "receiver/host/host.h"
#include "receiver/host/place.h"
#include "receiver/job/address.h"
#include "receiver/ssh/transport.h"
#include "receiver/stream/agent_session.h"

/* An agent that only answers and dials needs little. */
enum { COMMAND_BYTES = 8192, MEMORY_BYTES = 8 << 20, STALL_MS = 60000 };

static const char check_name[] = "data-channel";

/* The agent is up, so data can go through SSH at least.  Can it reach us over TCP, too? */
static void try_dial(struct agent_session *a, const struct data_options *data, const char *address,
                     struct doctor_report *report)
{
    enum doctor_result bad = data->channel == DATA_TCP ? DOCTOR_FAIL : DOCTOR_WARN;
    uint32_t connection;
    struct err e;

    if (agent_session_dial(a, &connection, &e) == 0) {
        doctor_add(report, check_name, NULL, DOCTOR_OK, "",
                   "the host reaches us at %s over TCP, %s", address,
                   data->security == DATA_AUTH ? "sealed" : "encrypted");
        return;
    }
    doctor_add(report, check_name, NULL, bad,
               "let the host reach one of our ports 31031, 44046, 8000 (firewall?), or name a way "
               "with --data-listen and --data-connect; else data go through SSH, which is slower",
               "the host does not reach us at %s: %s", address, e.text);
}

static void try_session(const struct data_options *data, struct agent_session_config *config,
                        struct doctor_report *report)
{
    struct agent_session *a = NULL;
    struct err e;
    int rc = agent_session_start(&a, config, &e);

    /* A run goes on through SSH where no port is free; so do we, to look at the rest. */
    if (rc != 0 && e.code == ERR_BUSY && config->listen_address != NULL) {
        doctor_add(report, check_name, NULL, data->channel == DATA_TCP ? DOCTOR_FAIL : DOCTOR_WARN,
                   "free one of the ports 31031, 44046, 8000, or name one with --data-listen", "%s",
                   e.text);
        config->listen_address = NULL;
        rc = agent_session_start(&a, config, &e);
    }
    if (rc != 0) {
        doctor_add(report, check_name, NULL, DOCTOR_FAIL, "", "the agent does not answer: %s",
                   e.text);
        return;
    }
    doctor_add(report, check_name, NULL, DOCTOR_OK, "", "the agent answers through SSH");
    if (config->listen_address != NULL)
        try_dial(a, data,
                 config->dial_address != NULL ? config->dial_address : config->listen_address,
                 report);
    if (!agent_session_end(a))
        doctor_add(report, check_name, NULL, DOCTOR_WARN, "", "the agent did not end in time");
}

void doctor_try_channel(void *context, struct host *h, struct placed *agent,
                        struct doctor_report *report)
{
    const struct app *app = context;
    const struct data_options *data = &app->options->data;
    struct bytes command = { .ceiling = COMMAND_BYTES };
    char *listen = NULL, *dial = NULL;
    struct agent_session_config config = {
        .transport = h->transport,
        .mode_set = record_mode_bit(data->security == DATA_AUTH ? RECORD_AUTH : RECORD_ENCRYPT),
        .memory_bytes = MEMORY_BYTES,
        .stall_ms = STALL_MS,
        .listen_port = data->listen.port,
        .dial_port = data->connect.port,
    };
    struct err e;

    if (shell_command(&command, &e, agent->path, "--serve", (char *)NULL) != 0 ||
        (config.command = bytes_text(&command, &e)) == NULL ||
        (data->channel != DATA_SSH &&
         address_for_data(h->transport, data, &listen, &dial, &e) != 0)) {
        doctor_add(report, check_name, NULL, DOCTOR_FAIL, "", "%s", e.text);
        goto out;
    }
    config.listen_address = listen;
    config.dial_address = dial;
    try_session(data, &config, report);

out:
    free(listen);
    free(dial);
    bytes_free(&command);
}
