#include "tests/unit/cmocka_all.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "receiver/base/log.h"

static int kept = -1;
static char dir[64], path[96];

static int setup(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/vmferry-test-XXXXXX");
    if (mkdtemp(dir) == NULL)
        return -1;
    snprintf(path, sizeof path, "%s/stderr", dir);
    kept = dup(STDERR_FILENO);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    dup2(fd, STDERR_FILENO);
    close(fd);
    log_set_level(LOG_NOTE);
    return 0;
}

static int teardown(void **state)
{
    char log[96];

    (void)state;
    log_close_file();
    dup2(kept, STDERR_FILENO);
    close(kept);
    unlink(path);
    snprintf(log, sizeof log, "%s/log", dir);
    unlink(log);
    return rmdir(dir);
}

static char *content(const char *of)
{
    static char text[1 << 20];
    int fd = open(of, O_RDONLY);
    ssize_t count;

    assert_true(fd >= 0);
    count = read(fd, text, sizeof text - 1);
    close(fd);
    assert_true(count >= 0);
    text[count] = 0;
    return text;
}

static void levels_decide_what_is_shown(void **state)
{
    (void)state;
    log_info("a step");
    log_note("a note");
    log_warning("a warning");
    log_set_level(LOG_ERROR);
    log_warning("a hidden warning");
    log_error("an error");
    log_set_level(LOG_DEBUG);
    log_debug("a detail");
    assert_string_equal(content(path),
                        "a note\nwarning: a warning\nerror: an error\ndebug: a detail\n");
}

static void hostile_text_stays_on_its_line(void **state)
{
    (void)state;
    log_note("vm %s", "web\x1b[2J\nerror: not mine\xe2\x80\xae\xff");
    assert_string_equal(content(path), "vm web\\x1b[2J\\nerror: not mine\\u202e\\xff\n");
}

static void a_very_long_message_is_cut_and_ends_its_line(void **state)
{
    char *longer = malloc(100000);
    char *text;

    (void)state;
    assert_non_null(longer);
    memset(longer, 1, 99999); /* each byte takes four when shown */
    longer[99999] = 0;
    log_note("%s", longer);
    text = content(path);
    assert_int_equal(strlen(text), 4 * 2047 + 1);
    assert_int_equal(text[strlen(text) - 1], '\n');
    free(longer);
}

static void the_log_file_has_times_and_steps_and_is_private(void **state)
{
    char log[96], *text;
    struct err e;
    struct stat st;

    (void)state;
    snprintf(log, sizeof log, "%s/log", dir);
    assert_int_equal(log_open_file(log, &e), 0);
    log_info("a step");
    log_debug("no detail");
    log_warning("careful");
    assert_int_equal(stat(log, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    text = content(log);
    assert_int_equal(text[4], '-');
    assert_int_equal(text[19], 'Z');
    assert_non_null(strstr(text, "Z info    a step\n"));
    assert_non_null(strstr(text, "Z warning careful\n"));
    assert_null(strstr(text, "no detail"));
}

static void a_log_file_that_cannot_be_made_is_an_error(void **state)
{
    struct err e;

    (void)state;
    assert_int_equal(log_open_file("/nowhere/at/all", &e), -1);
    assert_int_equal(e.code, ERR_NOT_FOUND);
}

static void a_full_log_file_is_told_once(void **state)
{
    struct err e;
    char *text;

    (void)state;
    assert_int_equal(log_open_file("/dev/full", &e), 0);
    log_info("one");
    log_info("two");
    text = content(path);
    assert_non_null(strstr(text, "the log file is closed"));
    assert_null(strstr(strstr(text, "closed") + 6, "closed"));
}

static char seen[256];

static void see(void *context, enum log_level level, const char *text)
{
    assert_ptr_equal(context, seen);
    snprintf(seen + strlen(seen), sizeof seen - strlen(seen), "%d:%s;", level, text);
}

static void an_observer_sees_raw_text_of_every_level(void **state)
{
    (void)state;
    seen[0] = 0;
    log_set_observer(see, seen);
    log_set_level(LOG_ERROR);
    errno = 5;
    log_warning("a\nb");
    log_debug("c");
    assert_int_equal(errno, 5);
    log_set_observer(NULL, NULL);
    log_error("unseen");
    assert_string_equal(seen, "1:a\nb;4:c;");
}

static void *write_many(void *name)
{
    for (int i = 0; i < 500; i++)
        log_note("%s", (const char *)name);
    return NULL;
}

static void lines_of_threads_never_mix(void **state)
{
    static char names[4][65];
    pthread_t threads[4];
    size_t lines = 0;
    char *rest, *line;

    (void)state;
    for (int i = 0; i < 4; i++) {
        memset(names[i], 'a' + i, 64);
        assert_int_equal(pthread_create(&threads[i], NULL, write_many, names[i]), 0);
    }
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    for (line = strtok_r(content(path), "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        assert_int_equal(strlen(line), 64);
        assert_string_equal(line, names[line[0] - 'a']);
        lines++;
    }
    assert_int_equal(lines, 2000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(levels_decide_what_is_shown, setup, teardown),
        cmocka_unit_test_setup_teardown(hostile_text_stays_on_its_line, setup, teardown),
        cmocka_unit_test_setup_teardown(a_very_long_message_is_cut_and_ends_its_line, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(the_log_file_has_times_and_steps_and_is_private, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_log_file_that_cannot_be_made_is_an_error, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_full_log_file_is_told_once, setup, teardown),
        cmocka_unit_test_setup_teardown(an_observer_sees_raw_text_of_every_level, setup, teardown),
        cmocka_unit_test_setup_teardown(lines_of_threads_never_mix, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
