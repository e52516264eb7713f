#include "tests/unit/cmocka_all.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "protocol/base/io.h"
#include "protocol/block/source.h"
#include "receiver/image/raw_file.h"

enum { CAPACITY = (3 << 20) + 1536 };

/* A disk in memory: data where a byte of its 4 KiB is not zero, else zeros that are told. */
struct disk {
    struct source source;
    uint8_t bytes[CAPACITY];
    uint64_t fail_at; /* a read that touches this offset fails */
    unsigned reads;
};

static struct disk disk;
static char folder[64], path[96];
static struct err e;

static bool is_data(uint64_t block)
{
    uint64_t from = block * 4096, to = from + 4096 < CAPACITY ? from + 4096 : CAPACITY;

    for (; from < to; from++) {
        if (disk.bytes[from] != 0)
            return true;
    }
    return false;
}

static int disk_extent_at(struct source *s, uint64_t offset, struct extent *out, struct err *why)
{
    uint64_t block = offset / 4096, end = (CAPACITY + 4095) / 4096;
    bool data = is_data(block);

    (void)s;
    (void)why;
    while (block < end && is_data(block) == data)
        block++;
    *out = (struct extent){ .offset_bytes = offset, .kind = data ? EXTENT_DATA : EXTENT_ZERO };
    out->length_bytes = (block * 4096 < CAPACITY ? block * 4096 : CAPACITY) - offset;
    return 0;
}

static int disk_read(struct source *s, uint64_t offset, void *out, size_t count, struct err *why)
{
    (void)s;
    assert_true(offset + count <= CAPACITY);
    disk.reads++;
    if (disk.fail_at >= offset && disk.fail_at < offset + count)
        return err_set(why, ERR_SOURCE, "the medium fails");
    memcpy(out, disk.bytes + offset, count);
    return 0;
}

static void disk_close(struct source *s)
{
    (void)s;
}

static int setup(void **state)
{
    static const struct source_ops ops = { disk_extent_at, disk_read, disk_close };

    (void)state;
    memset(&disk, 0, sizeof disk);
    disk.source = (struct source){ .ops = &ops, .capacity_bytes = CAPACITY };
    disk.fail_at = UINT64_MAX;
    snprintf(folder, sizeof folder, "/tmp/vmferry-raw-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/disk.raw", folder);
    return 0;
}

static unsigned files_left(void)
{
    DIR *d = opendir(folder);
    unsigned count = 0;

    assert_non_null(d);
    for (struct dirent *entry; (entry = readdir(d)) != NULL;)
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(d);
    return count;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    assert_int_equal(rmdir(folder), 0);
    return 0;
}

static void fill(uint64_t offset, size_t count)
{
    memset(disk.bytes + offset, 0xa5, count);
}

static int write_it(bool replace, struct raw_result *r)
{
    struct raw_config config = { .replace = replace };

    e.code = ERR_NONE;
    return raw_file_write(&disk.source, path, &config, r, &e);
}

static void assert_file(void)
{
    static uint8_t found[CAPACITY + 1];
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(lseek(fd, 0, SEEK_END), CAPACITY);
    assert_int_equal(io_pread_all(fd, found, CAPACITY, 0, &e), 0);
    close(fd);
    assert_memory_equal(found, disk.bytes, CAPACITY);
}

static void a_disk_becomes_a_file_with_holes(void **state)
{
    struct raw_result r;
    struct stat s;

    (void)state;
    fill(0, 512);
    fill(8192, 4096);
    fill((1 << 20) - 100, 200);
    fill(CAPACITY - 1, 1);
    assert_int_equal(write_it(false, &r), 0);
    assert_file();
    assert_int_equal(stat(path, &s), 0);
    assert_int_equal(s.st_mode & 07777, 0600);
    assert_true(s.st_blocks * 512 < 1 << 20);
    assert_int_equal(r.written_bytes, 4096 + 4096 + 8192 + 1536);
    assert_int_equal(files_left(), 1);
}

static void an_empty_disk_is_one_hole(void **state)
{
    struct raw_result r;

    (void)state;
    assert_int_equal(write_it(false, &r), 0);
    assert_file();
    assert_int_equal(r.read_bytes + r.written_bytes + disk.reads, 0);
}

static void a_full_disk_is_read_in_large_pieces(void **state)
{
    struct raw_result r;

    (void)state;
    fill(0, CAPACITY);
    assert_int_equal(write_it(false, &r), 0);
    assert_file();
    assert_int_equal(r.written_bytes, CAPACITY);
    assert_int_equal(disk.reads, 4);
}

static void short_gaps_are_read_over(void **state)
{
    struct raw_result r;

    (void)state;
    for (uint64_t at = 0; at < 1 << 20; at += 8192)
        fill(at, 4096);
    assert_int_equal(write_it(false, &r), 0);
    assert_file();
    assert_true(disk.reads <= 2);
    assert_int_equal(r.written_bytes, 1 << 19);
}

static void a_file_that_is_there_stays(void **state)
{
    struct raw_result r;
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    (void)state;
    assert_int_equal(write(fd, "mine", 4), 4);
    close(fd);
    fill(0, 512);
    assert_int_equal(write_it(false, &r), -1);
    assert_int_equal(e.code, ERR_REFUSED);
    assert_int_equal(disk.reads, 0);
    assert_int_equal(write_it(true, &r), 0);
    assert_file();
}

static void a_failing_read_leaves_nothing(void **state)
{
    struct raw_result r;

    (void)state;
    fill(0, CAPACITY);
    disk.fail_at = 2 << 20;
    assert_int_equal(write_it(false, &r), -1);
    assert_int_equal(e.code, ERR_SOURCE);
    assert_int_equal(files_left(), 0);
}

static int stop_at_once(void *context, uint64_t done, uint64_t read, struct err *why)
{
    unsigned *calls = context;

    (void)done;
    (void)read;
    (*calls)++;
    return err_set(why, ERR_STOPPED, "stopped");
}

static int refuse(void *context, struct err *why)
{
    (void)context;
    return err_set(why, ERR_SOURCE, "it has changed");
}

static void who_asks_to_end_is_heard(void **state)
{
    struct raw_result r;
    unsigned calls = 0;
    struct raw_config config = { .progress = stop_at_once, .context = &calls };

    (void)state;
    fill(0, CAPACITY);
    assert_int_equal(raw_file_write(&disk.source, path, &config, &r, &e), -1);
    assert_int_equal(e.code, ERR_STOPPED);
    assert_int_equal(calls, 1);
    config = (struct raw_config){ .finished = refuse };
    assert_int_equal(raw_file_write(&disk.source, path, &config, &r, &e), -1);
    assert_int_equal(e.code, ERR_SOURCE);
    assert_int_equal(files_left(), 0);
}

static void targets_that_are_no_file(void **state)
{
    struct raw_config config = { .replace = true };
    struct raw_result r;
    char text[128];

    (void)state;
    assert_int_equal(raw_file_write(&disk.source, folder, &config, &r, &e), -1);
    assert_int_equal(e.code, ERR_REFUSED);
    snprintf(text, sizeof text, "%s/", path);
    assert_int_equal(raw_file_write(&disk.source, text, &config, &r, &e), -1);
    assert_int_equal(e.code, ERR_USAGE);
    snprintf(text, sizeof text, "%s/none/disk.raw", folder);
    assert_int_equal(raw_file_write(&disk.source, text, &config, &r, &e), -1);
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_int_equal(files_left(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_disk_becomes_a_file_with_holes, setup, teardown),
        cmocka_unit_test_setup_teardown(an_empty_disk_is_one_hole, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_disk_is_read_in_large_pieces, setup, teardown),
        cmocka_unit_test_setup_teardown(short_gaps_are_read_over, setup, teardown),
        cmocka_unit_test_setup_teardown(a_file_that_is_there_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(a_failing_read_leaves_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(who_asks_to_end_is_heard, setup, teardown),
        cmocka_unit_test_setup_teardown(targets_that_are_no_file, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
