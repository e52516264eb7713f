#include "receiver/cli/app.h"

#include <malloc.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "protocol/block/digest.h"
#include "receiver/base/log.h"
#include "receiver/base/state.h"
#include "receiver/base/stop.h"
#include "receiver/base/utf8.h"
#include "receiver/cli/commands.h"
#include "receiver/cli/exit_codes.h"
#include "receiver/cli/progress.h"
#include "receiver/cli/report.h"
#include "receiver/cli/screen.h"
#include "version.h"

int app_state(struct app *app, struct err *e)
{
    if (app->state != NULL)
        return 0;
    return state_open(&app->state, app->options->state_dir, e);
}

unsigned app_columns(void)
{
    return screen_columns(STDOUT_FILENO);
}

void app_failure(struct app *app, const char *what, const struct err *e)
{
    /* A list is one array and nothing else, so single failures go to standard error alone. */
    if (app->command->list_like)
        log_error("%s: %s", what, e->text);
    else
        report_failure(app->report, what, e);
}

/* ---- Help ---- */

/* `help`, `--help`, `--version`; true when that was all. */
static bool tell(const struct options *o, int *exit_code)
{
    const struct command *c = NULL;
    const char *name = o->command;

    *exit_code = EXIT_OK;
    if (o->version) {
        printf("vmferry %s\n", VMFERRY_VERSION);
        return true;
    }
    if (name != NULL && strcmp(name, "help") == 0)
        name = o->operand_count > 0 ? o->operands[0] : NULL;
    else if (!o->help)
        return false;
    if (name != NULL)
        c = command_find(name);
    if (name != NULL && c == NULL)
        return false; /* the wrong command is the news */
    if (c != NULL)
        command_print_help(stdout, c);
    else
        commands_print_help(stdout);
    return true;
}

/* ---- Before the command ---- */

static int find_command(struct app *app, struct err *e)
{
    const char *name = app->options->command;
    char shown[80];

    if (name == NULL)
        return err_set(e, ERR_USAGE, "no command was given; vmferry --help lists them");
    if (strcmp(name, "help") == 0 && app->options->operand_count > 0)
        name = app->options->operands[0];
    app->command = command_find(name);
    if (app->command != NULL)
        return command_check(app->command, app->options, e);
    utf8_show(shown, sizeof shown, name);
    return err_set(e, ERR_USAGE, "\"%s\" is no command; vmferry --help lists them", shown);
}

static void set_level(const struct options *o)
{
    int level = LOG_NOTE + (int)o->verbose - (int)o->quiet;

    level = level < LOG_ERROR ? LOG_ERROR : level;
    log_set_level(level > LOG_DEBUG ? LOG_DEBUG : (enum log_level)level);
}

/* The display writes to a stream of its own, so that a whole screen goes out at once. */
static int open_progress(struct app *app, FILE **screen, struct err *e)
{
    const struct options *o = app->options;
    bool terminal = screen_is_terminal(STDERR_FILENO);
    struct progress_options p = { .report = app->report };
    int fd;

    /* JSON lines on the same terminal would be torn apart by redrawing. */
    if (o->json && isatty(STDOUT_FILENO))
        terminal = false;
    p.draw = terminal && o->progress != PROGRESS_NO && o->quiet == 0;
    p.plain = !p.draw && o->progress == PROGRESS_YES && !o->json;
    if (o->progress == PROGRESS_NO)
        p.report = NULL;
    fd = dup(STDERR_FILENO);
    *screen = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (*screen == NULL) {
        io_drop(&fd);
        p.draw = p.plain = false;
    } else {
        setvbuf(*screen, NULL, _IOFBF, 1 << 14);
        p.out = *screen;
    }
    return progress_open(&app->progress, &p, e);
}

static void be_careful(void)
{
    const struct rlimit none = { 0, 0 };

    /* Memory may hold passwords: it is not written to disk when we crash. */
    setrlimit(RLIMIT_CORE, &none);
}

/*
 * Blocks come and go by the thousand in each second.  glibc gives such memory back to the system
 * and fetches it again, page by page, unless it is told from which size on that pays.
 */
static void keep_memory(void)
{
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, BLOCK_BYTES_MAX * 2);
    mallopt(M_TRIM_THRESHOLD, BLOCK_BYTES_MAX * 4);
#endif
}

/* ---- The run ---- */

static int run_command(struct app *app, struct err *e)
{
    FILE *screen = NULL;
    int rc = -1;

    if (app->options->log_file != NULL && log_open_file(app->options->log_file, e) != 0)
        goto out;
    if (open_progress(app, &screen, e) != 0)
        goto out;
    if (geteuid() == 0)
        log_info("running as root, which is not needed");
    rc = app->command->run(app, e);

out:
    progress_close(app->progress);
    app->progress = NULL;
    if (screen != NULL)
        fclose(screen);
    return rc;
}

static int finish(struct app *app, struct err *failure, uint64_t began_ms)
{
    struct err e;
    int code;

    /* A stop that a VM's result tells already is not told twice. */
    if (failure->code != ERR_NONE && app->report != NULL &&
        !(failure->code == ERR_STOPPED && app->result.count > 0))
        report_failure(app->report, NULL, failure);
    code = exit_code_of_run(&app->result, failure->code);
    if (app->exit_code >= 0 && code < EXIT_SIGNAL && failure->code == ERR_NONE)
        code = app->exit_code;
    if (app->report == NULL)
        return code;
    report_summary(app->report, &app->result, code, io_clock_ms() - began_ms, app->summary,
                   app->summary_context);
    if (report_flush(app->report, &e) != 0) {
        log_error("%s", e.text);
        code = code == EXIT_OK ? exit_code_of(e.code) : code;
    }
    return code;
}

int app_main(int argc, char **argv)
{
    uint64_t began_ms = io_clock_ms();
    struct err e = { .code = ERR_NONE }, ignored;
    struct options o;
    struct app app = { .options = &o, .exit_code = -1 };
    struct report_options r = { .out = stdout };
    int parsed = options_parse(&o, argc, argv, &e);
    int code;

    set_level(&o);
    be_careful();
    keep_memory();
    if (parsed == 0 && tell(&o, &code)) {
        code = fflush(stdout) == 0 && !ferror(stdout) ? code : EXIT_OTHER;
        options_free(&o);
        return code;
    }
    if (stop_install(&ignored) != 0)
        log_warning("%s", ignored.text);
    /* A wrong option is told before a wrong command; both need to know whom they tell. */
    if (find_command(&app, parsed == 0 ? &e : &ignored) != 0)
        parsed = -1;
    r.json = o.json;
    r.list_like = app.command != NULL && app.command->list_like;
    r.command = o.command != NULL ? o.command : "";
    if (report_open(&app.report, &r, &ignored) != 0)
        log_error("%s", ignored.text);
    if (parsed == 0 && app.report != NULL && run_command(&app, &e) == 0)
        e.code = ERR_NONE;
    code = finish(&app, &e, began_ms);
    report_close(app.report);
    if (app.summary_end != NULL)
        app.summary_end(app.summary_context);
    run_result_free(&app.result);
    state_close(app.state);
    log_close_file();
    options_free(&o);
    return code;
}
