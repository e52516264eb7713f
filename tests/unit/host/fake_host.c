#include "tests/unit/host/fake_host.h"

#include <errno.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "protocol/base/bytes.h"
#include "protocol/base/err.h"
#include "tests/unit/host/fake_parts.h"

enum { WORDS_MAX = 40 };

/* One command that was started. */
struct fake_process {
    struct fake_host *f;
    pthread_t thread;
    int fd; /* our end */
    char *command;
    char *input;
    size_t input_bytes;
    struct fake_reply reply;
    bool joined;
};

static pthread_mutex_t state_lock = PTHREAD_MUTEX_INITIALIZER; /* guards the fake's state */

void fake_print_bytes(struct fake_reply *r, const void *data, size_t count)
{
    if (count == 0)
        return;
    if (r->out_bytes + count + 1 > r->out_room) {
        r->out_room = 2 * (r->out_bytes + count + 1);
        r->out = realloc(r->out, r->out_room);
        if (r->out == NULL)
            abort();
    }
    memcpy(r->out + r->out_bytes, data, count);
    r->out_bytes += count;
    r->out[r->out_bytes] = '\0';
}

void fake_print(struct fake_reply *r, const char *format, ...)
{
    char *text = NULL;
    va_list args;
    int n;

    va_start(args, format);
    n = vasprintf(&text, format, args);
    va_end(args);
    if (n < 0)
        abort();
    fake_print_bytes(r, text, (size_t)n);
    free(text);
}

void fake_complain(struct fake_reply *r, int status, const char *text)
{
    snprintf(r->errors, sizeof r->errors, "%s\n", text);
    r->status = status;
}

/* Take a command line apart: quotes away, words; ";", "&&", "||", ">" stay words of their own. */
static size_t split(char *line, char **words)
{
    size_t count = 0;
    char *in = line, *out = line;

    while (count < WORDS_MAX) {
        while (*in == ' ')
            in++;
        if (*in == '\0')
            break;
        words[count++] = out;
        while (*in != '\0' && *in != ' ') {
            if (*in == '\'') {
                for (in++; *in != '\'' && *in != '\0';)
                    *out++ = *in++;
                in += *in != '\0';
            } else if (*in == '\\' && in[1] != '\0') {
                in++;
                *out++ = *in++;
            } else {
                *out++ = *in++;
            }
        }
        /* The blank is passed before its place may be written over. */
        in += *in == ' ';
        *out++ = '\0';
    }
    return count;
}

struct fake_snapshot *fake_host_add_snapshot(struct fake_host *f, const char *name, int64_t created)
{
    struct fake_snapshot *s = &f->snapshots[f->snapshot_count++];

    s->id = ++f->last_id;
    s->created = created;
    snprintf(s->name, sizeof s->name, "%s", name);
    f->links++;
    return s;
}

bool fake_host_has(const struct fake_host *f, const char *name)
{
    for (size_t i = 0; i < f->snapshot_count; i++)
        if (strcmp(f->snapshots[i].name, name) == 0)
            return true;
    return false;
}

struct fake_file *fake_host_file(struct fake_host *f, const char *path)
{
    for (size_t i = 0; i < f->file_count; i++)
        if (strcmp(f->files[i].path, path) == 0)
            return &f->files[i];
    return NULL;
}

void fake_host_put(struct fake_host *f, const char *path, const void *data, size_t count)
{
    struct fake_file *file = &f->files[f->file_count++];

    snprintf(file->path, sizeof file->path, "%s", path);
    file->data = malloc(count + 1);
    if (file->data == NULL)
        abort();
    memcpy(file->data, data, count);
    file->count = count;
    file->folder = false;
}

static void drop_file(struct fake_host *f, struct fake_file *file)
{
    free(file->data);
    *file = f->files[--f->file_count];
}

int64_t fake_now(const struct fake_host *f)
{
    return FAKE_EPOCH + (int64_t)(f->clock_ms / 1000);
}

static void run_cat(struct fake_host *f, const char *path, struct fake_reply *r)
{
    struct fake_file *file = fake_host_file(f, path);
    char text[400];

    if (fake_descriptor(f, path, r))
        return;
    if (file != NULL) {
        fake_print_bytes(r, file->data, file->count);
        return;
    }
    snprintf(text, sizeof text, "cat: can't open '%s': No such file or directory", path);
    fake_complain(r, 1, text);
}

static void run_sha256(struct fake_host *f, const char *path, struct fake_reply *r)
{
    struct fake_file *file = fake_host_file(f, path);
    unsigned char hash[32];
    unsigned bytes;

    if (file == NULL) {
        fake_complain(r, 1, "sha256sum: can't open it");
        return;
    }
    EVP_Digest(file->data, file->count, hash, &bytes, EVP_sha256(), NULL);
    for (unsigned i = 0; i < bytes; i++)
        fake_print(r, "%02x", hash[i]);
    fake_print(r, "  %s\n", path);
}

/* umask 077; mkdir FOLDER */
static void run_mkdir(struct fake_host *f, const char *path, struct fake_reply *r)
{
    if (fake_host_file(f, path) != NULL) {
        fake_complain(r, 1, "mkdir: can't create directory: File exists");
    } else if (f->mkdir_fails_on_ds && strncmp(path, "/tmp/", 5) != 0) {
        fake_complain(r, 1, "mkdir: can't create directory: No space left on device");
    } else {
        fake_host_put(f, path, "", 0);
        fake_host_file(f, path)->folder = true;
    }
}

/* umask 077; set -C; cat > FILE && chmod 0700 FILE */
static void run_upload(struct fake_host *f, const char *path, const char *input, size_t count,
                       struct fake_reply *r)
{
    if (fake_host_file(f, path) != NULL) {
        fake_complain(r, 1, "sh: can't create it: File exists");
        return;
    }
    fake_host_put(f, path, input, count);
    if (f->corrupt_upload && count > 0)
        fake_host_file(f, path)->data[count / 2] ^= 1;
}

/* [ -e FOLDER ] || exit 44; rm -f FILE; rmdir FOLDER */
static void run_removal(struct fake_host *f, char **words, size_t count, struct fake_reply *r)
{
    const char *folder = words[2];

    if (fake_host_file(f, folder) == NULL) {
        r->status = 44;
        return;
    }
    for (size_t i = 3; i + 1 < count; i++)
        if (strcmp(words[i], "-f") == 0) {
            char *name = words[i + 1];
            struct fake_file *file;

            name[strcspn(name, ";")] = '\0';
            file = fake_host_file(f, name);
            if (file != NULL)
                drop_file(f, file);
        }
    for (size_t i = 0; i < f->file_count; i++)
        if (strncmp(f->files[i].path, folder, strlen(folder)) == 0 &&
            f->files[i].path[strlen(folder)] == '/') {
            fake_complain(r, 1, "rmdir: it: Directory not empty");
            return;
        }
    drop_file(f, fake_host_file(f, folder));
}

static void run_esxcli(struct fake_host *f, char **words, size_t count, struct fake_reply *r)
{
    if (count >= 4 && strcmp(words[1], "storage") == 0)
        fake_print(
            r, "Mount Point                                        Volume Name  UUID            "
               "                     Mounted  Type             Size           Free\n"
               "-------------------------------------------------  -----------  "
               "-----------------------------------  -------  ------  -------------  "
               "-------------\n" STORE
               "  ds1          5c8f0001-00000001-0001-000000000001     true  VMFS-6   "
               "118380036096    74551656448\n");
    else if (count >= 4 && strcmp(words[2], "uuid") == 0)
        fake_print(r, "5e0f0000-aaaa-bbbb-cccc-000000000001\n");
    else if (count >= 5 && strcmp(words[2], "stats") == 0)
        fake_print(r, "%llu\n", (unsigned long long)f->clock_ms * 1000 + 3600000000ull);
    else
        fake_complain(r, 1, "Error: Unknown command or namespace");
}

static void run(struct fake_host *f, char **words, size_t count, const char *input,
                size_t input_bytes, struct fake_reply *r)
{
    struct fake_file *file;

    if (f->extra != NULL && f->extra(f, words, count, r))
        return;
    if (strcmp(words[0], "/bin/vim-cmd") == 0 && count > 1)
        fake_vim(f, words, count, r);
    else if (strcmp(words[0], "/bin/esxcli") == 0)
        run_esxcli(f, words, count, r);
    else if (strcmp(words[0], "uname") == 0)
        fake_print(r, "VMkernel\nVMware ESXi 8.0.2 build-22380479\nVMware ESXi 8.0 Update 2\n");
    else if (strcmp(words[0], "cat") == 0)
        run_cat(f, words[1], r);
    else if (strcmp(words[0], "sha256sum") == 0)
        run_sha256(f, words[1], r);
    else if (strcmp(words[0], "umask") == 0 && strcmp(words[2], "mkdir") == 0)
        run_mkdir(f, words[3], r);
    else if (strcmp(words[0], "umask") == 0 && strcmp(words[2], "set") == 0)
        run_upload(f, words[6], input, input_bytes, r);
    else if (strcmp(words[0], "[") == 0)
        run_removal(f, words, count, r);
    else if ((file = fake_host_file(f, words[0])) != NULL && f->exec_refused)
        fake_complain(r, 126, "sh: it: Operation not permitted");
    else if (file != NULL)
        fake_print(r, "vmferry-agent 0.1.0\n");
    else
        fake_complain(r, 127, "sh: not found");
}

static void *work(void *argument)
{
    struct fake_process *p = argument;
    char *line = strdup(p->command);
    char *words[WORDS_MAX];
    size_t count, at = 0;

    if (line == NULL)
        abort();
    for (;;) {
        char piece[4096];
        ssize_t n = read(p->fd, piece, sizeof piece);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        p->input = realloc(p->input, p->input_bytes + (size_t)n);
        if (p->input == NULL)
            abort();
        memcpy(p->input + p->input_bytes, piece, (size_t)n);
        p->input_bytes += (size_t)n;
    }
    pthread_mutex_lock(&state_lock);
    count = split(line, words);
    if (p->f->command_count < FAKE_COMMANDS_MAX) {
        char joined[1024] = "";

        for (size_t i = 0; i < count; i++)
            snprintf(joined + strlen(joined), sizeof joined - strlen(joined), "%s%s", i ? " " : "",
                     words[i]);
        p->f->commands[p->f->command_count++] = strdup(joined);
    }
    if (count > 0)
        run(p->f, words, count, p->input == NULL ? "" : p->input, p->input_bytes, &p->reply);
    pthread_mutex_unlock(&state_lock);
    while (at < p->reply.out_bytes) {
        ssize_t n = send(p->fd, p->reply.out + at, p->reply.out_bytes - at, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        at += (size_t)n;
    }
    shutdown(p->fd, SHUT_RDWR);
    free(line);
    return NULL;
}

static int fake_exec(struct transport *t, const char *command, struct remote_process *out,
                     struct err *e)
{
    struct fake_host *f = (struct fake_host *)t;
    struct fake_process *p;
    int fds[2];

    if (f->cut)
        return err_set(e, ERR_NETWORK, "cut");
    p = calloc(1, sizeof *p);
    if (p == NULL || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0)
        abort();
    p->f = f;
    p->fd = fds[1];
    p->command = strdup(command);
    *out = (struct remote_process){ .transport = t, .impl = p, .fd = fds[0] };
    if (p->command == NULL || pthread_create(&p->thread, NULL, work, p) != 0)
        abort();
    return 0;
}

static void join(struct fake_process *p)
{
    if (!p->joined)
        pthread_join(p->thread, NULL);
    p->joined = true;
}

static int fake_wait(struct remote_process *process, uint64_t timeout_ms, struct remote_exit *out,
                     struct bytes *errors, struct err *e)
{
    struct fake_process *p = process->impl;

    (void)timeout_ms;
    join(p);
    *out = (struct remote_exit){ .known = true, .status = p->reply.status };
    return errors == NULL ? 0 : bytes_append(errors, p->reply.errors, strlen(p->reply.errors), e);
}

static void fake_release(struct remote_process *process)
{
    struct fake_process *p = process->impl;

    if (process->fd >= 0)
        close(process->fd);
    process->fd = -1;
    join(p);
    close(p->fd);
    free(p->command);
    free(p->input);
    free(p->reply.out);
    free(p);
}

static int fake_address(struct transport *t, char *out, size_t room, struct err *e)
{
    (void)t;
    (void)e;
    snprintf(out, room, "127.0.0.1");
    return 0;
}

static bool fake_alive(struct transport *t, struct err *e)
{
    (void)e;
    return !((struct fake_host *)t)->cut;
}

static void fake_close(struct transport *t)
{
    (void)t;
}

static const struct transport_ops fake_ops = {
    .exec = fake_exec,
    .wait = fake_wait,
    .release = fake_release,
    .local_address = fake_address,
    .alive = fake_alive,
    .close = fake_close,
};

static uint64_t fake_clock(void *context)
{
    return ((struct fake_host *)context)->clock_ms;
}

static int64_t fake_wall(void *context)
{
    return fake_now(context);
}

static void fake_pause(void *context, uint64_t ms)
{
    ((struct fake_host *)context)->clock_ms += ms;
}

static bool fake_stop(void *context)
{
    return ((struct fake_host *)context)->stop;
}

void fake_host_init(struct fake_host *f)
{
    struct host_hooks hooks = { .context = f,
                                .clock_ms = fake_clock,
                                .wall_clock = fake_wall,
                                .pause = fake_pause,
                                .stop = fake_stop };
    struct err e;

    memset(f, 0, sizeof *f);
    f->transport.ops = &fake_ops;
    f->power = "poweredOn";
    f->instance_uuid = "52aa0000-0000-0000-0000-000000000007";
    f->vmid = 7;
    f->disk_mode = "persistent";
    f->disk_backing = "FlatVer2";
    f->base_type = "vmfs";
    f->base_cid = 0x1a2b3c40;
    if (host_init(&f->host, &f->transport, "esx1", 22, "root", &hooks, &e) != 0)
        abort();
    snprintf(f->host.uuid, sizeof f->host.uuid, "5e0f0000-aaaa-bbbb-cccc-000000000001");
}

void fake_host_free(struct fake_host *f)
{
    for (size_t i = 0; i < f->command_count; i++)
        free(f->commands[i]);
    while (f->file_count > 0)
        drop_file(f, &f->files[0]);
    host_end(&f->host);
}

size_t fake_host_ran(const struct fake_host *f, const char *start)
{
    size_t n = 0;

    for (size_t i = 0; i < f->command_count; i++)
        n += strncmp(f->commands[i], start, strlen(start)) == 0;
    return n;
}
