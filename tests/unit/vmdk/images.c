#include "tests/unit/cmocka_all.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/base/err.h"
#include "tests/unit/vmdk/images.h"

enum { SECTOR = 512 };

/* ---- folder ---- */

void folder_make(struct folder *f)
{
    struct vmdk_volume volume = { f->path, "/vmfs/volumes/label" };
    struct err e;

    snprintf(f->path, sizeof f->path, "/tmp/vmferry-vmdk-XXXXXX");
    assert_non_null(mkdtemp(f->path));
    if (vmdk_local_files_new(&f->files, &volume, 1, &e) != 0)
        fail_msg("%s", e.text);
}

static int remove_one(const char *path, const struct stat *s, int flag, struct FTW *where)
{
    (void)s;
    (void)flag;
    (void)where;
    return remove(path);
}

void folder_remove(struct folder *f)
{
    vmdk_files_close(f->files);
    nftw(f->path, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

const char *folder_path(const struct folder *f, const char *name)
{
    static char paths[4][512];
    static unsigned turn;
    char *path = paths[turn++ % 4];

    snprintf(path, sizeof paths[0], "%s/%s", f->path, name);
    return path;
}

/* ---- files ---- */

int file_make(const struct folder *f, const char *name)
{
    int fd = open(folder_path(f, name), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    return fd;
}

void put_bytes(int fd, uint64_t at, const void *data, size_t count)
{
    assert_int_equal(pwrite(fd, data, count, (off_t)at), count);
}

static void put_le(int fd, uint64_t at, uint64_t v, size_t width)
{
    uint8_t raw[8];

    for (size_t i = 0; i < width; i++)
        raw[i] = (uint8_t)(v >> (8 * i));
    put_bytes(fd, at, raw, width);
}

void put16(int fd, uint64_t at, uint16_t v)
{
    put_le(fd, at, v, 2);
}

void put32(int fd, uint64_t at, uint32_t v)
{
    put_le(fd, at, v, 4);
}

void put64(int fd, uint64_t at, uint64_t v)
{
    put_le(fd, at, v, 8);
}

void file_size(int fd, uint64_t bytes)
{
    assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
}

void file_text(const struct folder *f, const char *name, const char *format, ...)
{
    char text[4096];
    va_list args;
    int fd = file_make(f, name), bytes;

    va_start(args, format);
    bytes = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    assert_true(bytes > 0 && (size_t)bytes < sizeof text);
    put_bytes(fd, 0, text, (size_t)bytes);
    close(fd);
}

void patch(const struct folder *f, const char *name, uint64_t at, const void *data, size_t count)
{
    int fd = open(folder_path(f, name), O_RDWR | O_CLOEXEC);

    assert_true(fd >= 0);
    put_bytes(fd, at, data, count);
    close(fd);
}

void patch32(const struct folder *f, const char *name, uint64_t at, uint32_t v)
{
    uint8_t raw[4] = { (uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24) };

    patch(f, name, at, raw, sizeof raw);
}

void patch64(const struct folder *f, const char *name, uint64_t at, uint64_t v)
{
    patch32(f, name, at, (uint32_t)v);
    patch32(f, name, at + 4, (uint32_t)(v >> 32));
}

void run(const char *format, ...)
{
    char command[2048];
    va_list args;

    va_start(args, format);
    vsnprintf(command, sizeof command, format, args);
    va_end(args);
    if (system(command) != 0)
        fail_msg("this failed: %s", command);
}

uint8_t *slurp(const char *path, size_t *bytes)
{
    struct stat st;
    uint8_t *data;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    data = malloc((size_t)st.st_size + 1);
    assert_non_null(data);
    assert_int_equal(read(fd, data, (size_t)st.st_size), st.st_size);
    close(fd);
    *bytes = (size_t)st.st_size;
    return data;
}

/* ---- layers ---- */

uint64_t next_random(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

void layer_random(struct layer *l, uint64_t sectors, uint32_t grain_sectors, uint64_t seed)
{
    static const uint8_t states[] = { ABSENT, ABSENT, ABSENT, ZERO, UNMAPPED, DATA, DATA, DATA };
    uint64_t r = seed * 2654435761u + 88172645463325252u;
    uint8_t state = ABSENT;

    *l = (struct layer){ .sectors = sectors, .grain_sectors = grain_sectors };
    l->grains = (size_t)((sectors + grain_sectors - 1) / grain_sectors);
    l->states = malloc(l->grains);
    l->bytes = malloc((size_t)sectors * SECTOR);
    assert_non_null(l->states);
    assert_non_null(l->bytes);
    for (size_t i = 0, left = 0; i < l->grains; i++, left--) {
        if (left == 0) {
            state = states[next_random(&r) % sizeof states];
            left = 1 + next_random(&r) % (next_random(&r) % 8 == 0 ? 700 : 5);
        }
        l->states[i] = state;
    }
    for (size_t i = 0; i < (size_t)sectors * SECTOR / 8; i++) {
        uint64_t v = next_random(&r);

        memcpy(l->bytes + i * 8, &v, 8);
    }
}

void layer_free(struct layer *l)
{
    free(l->states);
    free(l->bytes);
}

void layer_over(const struct layer *l, uint8_t *disk, uint64_t disk_sectors)
{
    for (size_t i = 0; i < l->grains; i++) {
        uint64_t start = (uint64_t)i * l->grain_sectors, count = l->grain_sectors;

        if (start >= disk_sectors)
            break;
        if (count > l->sectors - start)
            count = l->sectors - start;
        if (l->states[i] == DATA)
            memcpy(disk + start * SECTOR, l->bytes + start * SECTOR, (size_t)count * SECTOR);
        else if (l->states[i] != ABSENT)
            memset(disk + start * SECTOR, 0, (size_t)count * SECTOR);
    }
}

/* The bytes of a grain as they are stored: whole, with zeros behind the end of the disk. */
static void put_grain(int fd, uint64_t at, const struct layer *l, size_t grain)
{
    uint64_t start = (uint64_t)grain * l->grain_sectors, count = l->grain_sectors;

    if (count > l->sectors - start)
        count = l->sectors - start;
    put_bytes(fd, at, l->bytes + start * SECTOR, (size_t)count * SECTOR);
}

/* Is anything of this table's grains there? */
static bool table_used(const struct layer *l, size_t table, size_t entries)
{
    for (size_t i = table * entries; i < l->grains && i < (table + 1) * entries; i++)
        if (l->states[i] != ABSENT)
            return true;
    return false;
}

void cowd_write(const struct folder *f, const char *name, const struct layer *l, uint64_t seed)
{
    size_t tables = (l->grains + 4095) / 4096;
    uint64_t free_sector = 4 + (tables * 4 + SECTOR - 1) / SECTOR;
    int fd = file_make(f, name);

    put_bytes(fd, 0, "COWD", 4);
    put32(fd, 4, 1);
    put32(fd, 8, 3);
    put32(fd, 12, (uint32_t)l->sectors);
    put32(fd, 16, l->grain_sectors);
    put32(fd, 20, 4);
    put32(fd, 24, (uint32_t)tables);
    for (size_t t = 0; t < tables; t++) {
        size_t table = seed % 2 == 0 ? t : tables - 1 - t;
        uint64_t at = free_sector;

        if (!table_used(l, table, 4096))
            continue;
        put32(fd, 4 * SECTOR + table * 4, (uint32_t)at);
        free_sector += 32;
        for (size_t k = 0; k < 4096; k++) {
            size_t i = table * 4096 + (seed % 3 == 0 ? 4095 - k : k);

            if (i >= l->grains || l->states[i] == ABSENT)
                continue;
            if (l->states[i] != DATA) {
                put32(fd, at * SECTOR + i % 4096 * 4, 1);
                continue;
            }
            put32(fd, at * SECTOR + i % 4096 * 4, (uint32_t)free_sector);
            put_grain(fd, free_sector * SECTOR, l, i);
            free_sector += l->grain_sectors;
        }
    }
    put32(fd, 28, (uint32_t)free_sector);
    file_size(fd, (free_sector * SECTOR + 4095) / 4096 * 4096 + (seed % 2) * 65536);
    close(fd);
}

void sesparse_write(const struct folder *f, const char *name, const struct layer *l, uint64_t seed)
{
    size_t tables = (l->grains + 4095) / 4096;
    uint64_t tables_sectors = (tables * 64 + 2047) / 2048 * 2048;
    uint64_t bitmap = 6144 + tables_sectors, grains = bitmap + 4096;
    uint64_t region = (l->sectors + 2047) / 2048 * 2048 + 8192 * 8;
    uint64_t n = seed % 4 == 0 ? 0x1234 : seed % 4; /* the first free grain */
    uint64_t regions[][2] = { { 1, 1 },
                              { 2, 2 },
                              { 2048, 2048 },
                              { 4096, 2048 },
                              { 6144, tables_sectors },
                              { bitmap, 2048 },
                              { bitmap + 2048, 2048 },
                              { grains, region } };
    int fd = file_make(f, name);

    assert_int_equal(l->grain_sectors, 8);
    put64(fd, 0, 0xcafebabe);
    put64(fd, 8, UINT64_C(0x0000000200000001));
    put64(fd, 16, l->sectors);
    put64(fd, 24, 8);
    put64(fd, 32, 64);
    put64(fd, 48, seed % 2 == 0 ? 0 : 0x200);
    for (size_t i = 0; i < 8; i++) {
        put64(fd, 80 + i * 16, regions[i][0]);
        put64(fd, 88 + i * 16, regions[i][1]);
    }
    put64(fd, 512, 0xcafecafe);
    put64(fd, 520, tables);
    put64(fd, 528, 7);
    for (size_t t = 0; t < tables; t++) {
        uint64_t number = seed % 2 == 0 ? t : tables - 1 - t;

        if (!table_used(l, t, 4096))
            continue;
        put64(fd, 4096 * SECTOR + t * 8, UINT64_C(0x1000000000000000) | number);
        for (size_t i = t * 4096; i < l->grains && i < (t + 1) * 4096; i++) {
            uint64_t at = (6144 + number * 64) * SECTOR + i % 4096 * 8;

            if (l->states[i] == ZERO)
                put64(fd, at, UINT64_C(0x2000000000000000) | (i % 2 == 0 ? 0 : 77));
            else if (l->states[i] == UNMAPPED)
                put64(fd, at, UINT64_C(0x1000000000000000) | (i % 2 == 0 ? 0 : 99));
            if (l->states[i] != DATA)
                continue;
            put64(fd, at, UINT64_C(3) << 60 | (n & 0xfff) << 48 | n >> 12);
            put_grain(fd, (grains + n * 8) * SECTOR, l, i);
            n += i % 37 == 0 ? 2 : 1;
        }
    }
    file_size(fd, (grains + n * 8 + 8) * SECTOR);
    close(fd);
}

void sparse_write(const struct folder *f, const char *name, const struct layer *l, uint32_t flags)
{
    uint64_t tables = (l->grains + 511) / 512, gd_sectors = (tables * 4 + SECTOR - 1) / SECTOR;
    uint64_t rgd = 1, gd = rgd + gd_sectors + tables * 4;
    uint64_t end = gd + gd_sectors + tables * 4;
    uint64_t over = (end + l->grain_sectors - 1) / l->grain_sectors * l->grain_sectors;
    uint64_t next = over;
    int fd = file_make(f, name);

    put_bytes(fd, 0, "KDMV", 4);
    put32(fd, 4, flags & 4 ? 2 : 1);
    put32(fd, 8, 3 | flags);
    put64(fd, 12, l->sectors);
    put64(fd, 20, l->grain_sectors);
    put32(fd, 44, 512);
    put64(fd, 48, rgd);
    put64(fd, 56, gd);
    put64(fd, 64, over);
    put_bytes(fd, 73, "\n \r\n", 4);
    for (uint64_t t = 0; t < tables; t++) {
        put32(fd, rgd * SECTOR + t * 4, (uint32_t)(rgd + gd_sectors + t * 4));
        put32(fd, gd * SECTOR + t * 4, (uint32_t)(gd + gd_sectors + t * 4));
    }
    for (size_t i = 0; i < l->grains; i++) {
        uint64_t entry = (i / 512) * 4 * SECTOR + i % 512 * 4;
        uint32_t value = l->states[i] == ABSENT ? 0 : 1;

        if (l->states[i] == DATA) {
            value = (uint32_t)next;
            put_grain(fd, next * SECTOR, l, i);
            next += l->grain_sectors;
        }
        put32(fd, (rgd + gd_sectors) * SECTOR + entry, value);
        put32(fd, (gd + gd_sectors) * SECTOR + entry, value);
    }
    file_size(fd, next * SECTOR);
    close(fd);
}

void link_write(const struct folder *f, const char *name, const char *create_type,
                const char *extent_type, const char *extent, uint64_t sectors, uint32_t cid,
                uint32_t parent_cid, const char *parent)
{
    char hint[1024] = "";

    if (parent != NULL)
        snprintf(hint, sizeof hint, "parentFileNameHint=\"%s\"\n", parent);
    file_text(f, name,
              "# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID=%08x\nparentCID=%08x\n"
              "createType=\"%s\"\n%s\n# Extent description\nRW %llu %s \"%s\"%s\n\n"
              "# The Disk Data Base \n#DDB\n\nddb.adapterType = \"lsilogic\"\n",
              cid, parent == NULL ? 0xffffffffu : parent_cid, create_type, hint,
              (unsigned long long)sectors, extent_type, extent,
              strcmp(extent_type, "FLAT") == 0 ? " 0" : "");
}
