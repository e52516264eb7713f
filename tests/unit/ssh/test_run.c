/* Quoting through real shells, and whole commands over the memory transport. */
#include "tests/unit/cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "protocol/base/bytes.h"
#include "protocol/base/checked.h"
#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "receiver/ssh/transport.h"
#include "tests/unit/ssh/memory_transport.h"

static const char *const shells[][3] = { { "busybox", "sh", "-c" }, { "dash", "-c", NULL } };

/* What the shell prints for a command. */
static size_t run_shell(size_t which, const char *command, char *out, size_t room)
{
    int ends[2];
    int status;
    size_t count = 0;
    pid_t pid;

    assert_int_equal(pipe(ends), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(ends[1], 1);
        close(ends[0]);
        close(ends[1]);
        if (shells[which][2] != NULL)
            execlp(shells[which][0], shells[which][0], shells[which][1], shells[which][2], command,
                   (char *)NULL);
        else
            execlp(shells[which][0], shells[which][0], shells[which][1], command, (char *)NULL);
        _exit(126);
    }
    close(ends[1]);
    for (;;) {
        ssize_t n = read(ends[0], out + count, room - count);

        assert_true(n >= 0);
        if (n == 0)
            break;
        count += (size_t)n;
    }
    close(ends[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return count;
}

static void round_trip(const char *word)
{
    struct bytes command = { .ceiling = 65536 };
    struct err e;
    char out[8192];

    for (size_t i = 0; i < ARRAY_COUNT(shells); i++) {
        size_t count;

        command.count = 0;
        assert_int_equal(shell_command(&command, &e, "printf", "%s|", word, "end", NULL), 0);
        count = run_shell(i, (char *)command.data, out, sizeof out);
        assert_int_equal(count, strlen(word) + 5);
        assert_memory_equal(out, word, strlen(word));
        assert_memory_equal(out + strlen(word), "|end|", 5);
    }
    bytes_free(&command);
}

static void every_byte_survives_the_shell(void **state)
{
    char all[256];
    char pairs[256 * 2 + 1];
    size_t at = 0;

    (void)state;
    for (int i = 1; i < 256; i++)
        all[i - 1] = (char)i;
    all[255] = 0;
    round_trip(all);
    /* Each byte behind a backslash, and each between quotes. */
    for (int i = 1; i < 256; i++) {
        pairs[at++] = '\\';
        pairs[at++] = (char)i;
    }
    pairs[at] = 0;
    round_trip(pairs);
    at = 0;
    for (int i = 1; i < 256; i++) {
        pairs[at++] = '\'';
        pairs[at++] = (char)i;
    }
    pairs[at] = 0;
    round_trip(pairs);
}

static void odd_words_survive_the_shell(void **state)
{
    static const char *const words[] = { "",
                                         "'",
                                         "''",
                                         "'''",
                                         "\\",
                                         "\n",
                                         "$(id)",
                                         "`id`",
                                         "$HOME",
                                         "*",
                                         "~",
                                         "a b",
                                         "!x",
                                         "'\\''",
                                         "\"",
                                         "-n",
                                         "\\'",
                                         ";id",
                                         "#",
                                         "\\n",
                                         "\t",
                                         "a'b'c'",
                                         "[ds] vm/vm.vmx" };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(words); i++)
        round_trip(words[i]);
}

static void a_word_past_the_ceiling_leaves_the_command_alone(void **state)
{
    struct bytes command = { .ceiling = 10 };
    struct err e;

    (void)state;
    assert_int_equal(bytes_append(&command, "ab ", 3, &e), 0);
    assert_int_equal(shell_quote(&command, "0123456789", &e), -1);
    assert_int_equal(e.code, ERR_LIMIT);
    assert_int_equal(command.count, 3);
    assert_int_equal(shell_quote(&command, "01234", &e), 0);
    assert_memory_equal(command.data, "ab '01234'", 10);
    bytes_free(&command);
}

static void commands_are_run_and_recorded(void **state)
{
    static const struct memory_answer answers[] = {
        { .command = "one", .out = "first\n", .errors = "careful\n" },
        { .command = "one", .out = "second\n", .status = 4 },
        { .command = "killed", .signal = "KILL" },
        { .command = "any ", .prefix = true, .always = true, .out = "x" },
        { .command = "never" },
    };
    struct memory_transport *m = memory_transport_new(answers, ARRAY_COUNT(answers));
    struct transport *t = memory_transport_base(m);
    struct bytes out = { .ceiling = 100 };
    struct bytes errors = { .ceiling = 100 };
    struct remote_exit ended;
    struct err e;
    size_t count;

    (void)state;
    assert_int_equal(transport_run(t, "one", "input", 5, 5000, &out, &errors, &ended, &e), 0);
    assert_true(ended.known && ended.status == 0 && !ended.signalled);
    assert_int_equal(out.count, 6);
    assert_memory_equal(out.data, "first\n", 6);
    assert_memory_equal(errors.data, "careful\n", 8);
    assert_memory_equal(memory_transport_input(m, 0, &count), "input", 5);
    assert_int_equal(count, 5);
    out.count = 0;
    assert_int_equal(transport_run(t, "one", NULL, 0, 5000, &out, NULL, &ended, &e), 0);
    assert_int_equal(ended.status, 4);
    assert_memory_equal(out.data, "second\n", 7);
    assert_int_equal(transport_run(t, "one", NULL, 0, 5000, &out, NULL, &ended, &e), 0);
    assert_int_equal(ended.status, 127);
    assert_int_equal(transport_run(t, "killed", NULL, 0, 5000, &out, NULL, &ended, &e), 0);
    assert_true(ended.signalled);
    assert_string_equal(ended.signal, "KILL");
    for (int i = 0; i < 3; i++)
        assert_int_equal(transport_run(t, "any thing", NULL, 0, 5000, &out, NULL, &ended, &e), 0);
    assert_int_equal(memory_transport_count(m), 7);
    assert_string_equal(memory_transport_command(m, 3), "killed");
    assert_null(memory_transport_command(m, 7));
    assert_int_equal(memory_transport_unused(m), 1);
    bytes_free(&out);
    bytes_free(&errors);
    t->ops->close(t);
}

static void output_past_the_ceiling_is_a_limit(void **state)
{
    static const struct memory_answer answers[] = {
        { .command = "long", .out = "12345", .always = true }
    };
    struct memory_transport *m = memory_transport_new(answers, 1);
    struct transport *t = memory_transport_base(m);
    struct bytes out = { .ceiling = 4 };
    struct remote_exit ended;
    struct err e;

    (void)state;
    assert_int_equal(transport_run(t, "long", NULL, 0, 5000, &out, NULL, &ended, &e), -1);
    assert_int_equal(e.code, ERR_LIMIT);
    bytes_free(&out);
    out.ceiling = 5;
    assert_int_equal(transport_run(t, "long", NULL, 0, 5000, &out, NULL, &ended, &e), 0);
    assert_int_equal(out.count, 5);
    bytes_free(&out);
    t->ops->close(t);
}

static void a_cut_is_a_network_error_for_good(void **state)
{
    static const struct memory_answer answers[] = {
        { .command = "c", .out = "half", .cut = true }
    };
    struct memory_transport *m = memory_transport_new(answers, 1);
    struct transport *t = memory_transport_base(m);
    struct bytes out = { .ceiling = 100 };
    struct remote_exit ended;
    struct err e;

    (void)state;
    assert_true(t->ops->alive(t, &e));
    assert_int_equal(transport_run(t, "c", NULL, 0, 5000, &out, NULL, &ended, &e), -1);
    assert_int_equal(e.code, ERR_NETWORK);
    assert_false(ended.known);
    assert_false(t->ops->alive(t, &e));
    assert_int_equal(transport_run(t, "c", NULL, 0, 5000, &out, NULL, &ended, &e), -1);
    assert_int_equal(e.code, ERR_NETWORK);
    bytes_free(&out);
    t->ops->close(t);
}

/* More than any socket buffer, both ways at once. */
static void much_data_passes_both_ways(void **state)
{
    enum { COUNT = 5 << 20 };
    char *data = calloc(1, COUNT);
    struct memory_answer answer = { .command = "big", .out = data, .out_bytes = COUNT };
    struct memory_transport *m = memory_transport_new(&answer, 1);
    struct transport *t = memory_transport_base(m);
    struct bytes out = { .ceiling = COUNT };
    struct remote_exit ended;
    struct err e;
    size_t count;

    (void)state;
    assert_non_null(data);
    for (size_t i = 0; i < COUNT; i++)
        data[i] = (char)(i * 7 + i / 255);
    assert_int_equal(transport_run(t, "big", data, COUNT, 20000, &out, NULL, &ended, &e), 0);
    assert_int_equal(out.count, COUNT);
    assert_memory_equal(out.data, data, COUNT);
    assert_memory_equal(memory_transport_input(m, 0, &count), data, COUNT);
    assert_int_equal(count, COUNT);
    bytes_free(&out);
    t->ops->close(t);
    free(data);
}

static void uploads_tell_why_they_failed(void **state)
{
    static const struct {
        const char *said;
        int status;
        const char *signal;
        int code; /* 0: fine */
    } cases[] = { { NULL, 0, NULL, 0 },
                  { "cat: write error: No space left on device\n", 1, NULL, ERR_SPACE },
                  { "sh: can't create '/x\ny': File exists\n", 1, NULL, ERR_REFUSED },
                  { "sh: can't create /x: Permission denied\n", 1, NULL, ERR_REFUSED },
                  { NULL, 5, NULL, ERR_SYSTEM },
                  { NULL, 0, "KILL", ERR_SYSTEM } };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct memory_answer answer = { .command = "umask 077; set -C; cat > ./'it'\\''s' && "
                                                   "chmod 0500 ./'it'\\''s'",
                                        .errors = cases[i].said,
                                        .status = cases[i].status,
                                        .signal = cases[i].signal };
        struct memory_transport *m = memory_transport_new(&answer, 1);
        struct transport *t = memory_transport_base(m);
        struct err e = { 0 };
        size_t count;

        assert_int_equal(transport_upload(t, "body", 4, -1, "it's", 0500, 5000, &e),
                         cases[i].code == 0 ? 0 : -1);
        assert_int_equal(e.code, cases[i].code);
        assert_int_equal(memory_transport_unused(m), 0);
        assert_memory_equal(memory_transport_input(m, 0, &count), "body", 4);
        t->ops->close(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_byte_survives_the_shell),
        cmocka_unit_test(odd_words_survive_the_shell),
        cmocka_unit_test(a_word_past_the_ceiling_leaves_the_command_alone),
        cmocka_unit_test(commands_are_run_and_recorded),
        cmocka_unit_test(output_past_the_ceiling_is_a_limit),
        cmocka_unit_test(a_cut_is_a_network_error_for_good),
        cmocka_unit_test(much_data_passes_both_ways),
        cmocka_unit_test(uploads_tell_why_they_failed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
