/* What vim-cmd prints about VMs: literal shapes from captures, and hostile ones. */
#include "tests/unit/cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/err.h"
#include "receiver/host/inventory.h"
#include "receiver/host/vimdump.h"

/* ---- vimdump ---- */

/* A copy of exactly the text's size, so that a sanitizer sees one byte too many. */
static int read_dump(struct vimdump **out, const char *text, struct err *e)
{
    size_t bytes = strlen(text);
    char *copy = malloc(bytes == 0 ? 1 : bytes);
    int rc;

    assert_non_null(copy);
    memcpy(copy, text, bytes);
    rc = vimdump_read(out, copy, bytes, e);
    free(copy);
    return rc;
}

static void a_dump_is_read_by_path(void **state)
{
    struct vimdump *d;
    struct err e;
    uint64_t n;
    bool b;

    (void)state;
    assert_int_equal(
        read_dump(&d,
                  "Listsummary:\n\n(vim.vm.Summary) {\n   dynamicType = <unset>, \n"
                  "   vm = 'vim.VirtualMachine:3', \n"
                  "   runtime = (vim.vm.RuntimeInfo) {\n      powerState = \"poweredOn\","
                  " \n      question = (vim.vm.QuestionInfo) null\n   }, \n"
                  "   list = (string) [\n      \"a\", \n      \"b\"\n   ], \n"
                  "   none = (ManagedObjectReference) [], \n   number = 42, \n"
                  "   good = true\n}\n",
                  &e),
        0);
    assert_string_equal(vimnode_text(vimdump_root(d), "vm"), "vim.VirtualMachine:3");
    assert_string_equal(vimnode_text(vimdump_root(d), "runtime.powerState"), "poweredOn");
    assert_int_equal(vimnode_at(vimdump_root(d), "runtime.question")->kind, VIMNODE_UNSET);
    assert_int_equal(vimnode_at(vimdump_root(d), "list")->count, 2);
    assert_string_equal(vimnode_at(vimdump_root(d), "list")->first->next->text, "b");
    assert_int_equal(vimnode_at(vimdump_root(d), "none")->count, 0);
    assert_true(vimnode_u64(vimdump_root(d), "number", &n) && n == 42);
    assert_true(vimnode_bool(vimdump_root(d), "good", &b) && b);
    assert_null(vimnode_text(vimdump_root(d), "runtime.nothing"));
    assert_false(vimnode_u64(vimdump_root(d), "vm", &n));
    vimdump_free(d);
}

static void quotes_and_newlines_stay_inside_a_string(void **state)
{
    struct vimdump *d;
    struct err e;

    (void)state;
    assert_int_equal(
        read_dump(&d,
                  "(vim.vm.Summary) {\n   note = \"say \"hi\",\n\nsecond \"paragraph\"\n"
                  "   indented, with a \"quote\"\n   x\", \n   after = 1\n}",
                  &e),
        0);
    assert_string_equal(vimnode_text(vimdump_root(d), "note"),
                        "say \"hi\",\n\nsecond \"paragraph\"\n   indented, with a \"quote\"\n   x");
    assert_string_equal(vimnode_text(vimdump_root(d), "after"), "1");
    vimdump_free(d);
}

static void a_name_that_imitates_fields_is_refused(void **state)
{
    struct vimdump *d = NULL;
    struct err e;

    (void)state;
    /* The name is: x",\n   path = "[ds] evil.vmx", \n   z = "y */
    assert_int_equal(
        read_dump(&d,
                  "(vim.vm.Summary) {\n   name = \"x\", \n   path = \"[ds] evil.vmx\", \n"
                  "   z = \"y\", \n   path = \"[ds] good.vmx\"\n}\n",
                  &e),
        -1);
    assert_int_equal(e.code, ERR_CORRUPT);
    /* It opens an object that would swallow what follows: the depth no longer fits. */
    assert_int_equal(
        read_dump(&d,
                  "(vim.vm.Summary) {\n   name = \"x\", \n   path = (a) {\n   z = \"y\", \n"
                  "   path = \"[ds] good.vmx\"\n}\n",
                  &e),
        -1);
    assert_int_equal(e.code, ERR_CORRUPT);
}

static void a_dump_that_is_cut_anywhere_is_an_error(void **state)
{
    static const char whole[] = "(vim.vm.Summary) {\n   a = \"x\", \n   b = (t) [\n      (t) {\n"
                                "         c = 1\n      }\n   ]\n}";
    struct vimdump *d = NULL;
    struct err e;

    (void)state;
    for (size_t n = 0; n + 1 < sizeof whole - 1; n++) {
        char *part = strndup(whole, n);

        assert_non_null(part);
        assert_int_equal(read_dump(&d, part, &e), -1);
        assert_true(e.code == ERR_FORMAT || e.code == ERR_CORRUPT);
        free(part);
    }
    assert_int_equal(read_dump(&d, whole, &e), 0);
    vimdump_free(d);
}

static void depth_items_and_bytes_are_limited(void **state)
{
    struct vimdump *d = NULL;
    struct err e;
    char *text = malloc(VIMDUMP_BYTES_MAX + 1);
    size_t at = 0;

    (void)state;
    assert_non_null(text);
    at += (size_t)sprintf(text, "(t) {\n");
    for (int i = 1; i < 100; i++)
        at += (size_t)sprintf(text + at, "%*sa = (t) {\n", i, "");
    assert_int_equal(vimdump_read(&d, text, at, &e), -1);
    assert_int_equal(e.code, ERR_LIMIT);
    at = (size_t)sprintf(text, "(t) [\n");
    while (at + 8 < VIMDUMP_BYTES_MAX)
        at += (size_t)sprintf(text + at, " 1,\n");
    assert_int_equal(vimdump_read(&d, text, at, &e), -1);
    assert_int_equal(e.code, ERR_LIMIT);
    memset(text, 'x', VIMDUMP_BYTES_MAX + 1);
    assert_int_equal(vimdump_read(&d, text, VIMDUMP_BYTES_MAX + 1, &e), -1);
    assert_int_equal(e.code, ERR_LIMIT);
    free(text);
}

static void numbers_out_of_range_are_no_numbers(void **state)
{
    struct vimdump *d;
    struct err e;
    uint64_t n = 7;

    (void)state;
    assert_int_equal(read_dump(&d,
                               "(t) {\n a = 18446744073709551615,\n b = 18446744073709551616,\n"
                               " c = -1,\n d = 1.5,\n e = 0x10\n}\n",
                               &e),
                     0);
    assert_true(vimnode_u64(vimdump_root(d), "a", &n));
    assert_true(n == UINT64_MAX);
    for (const char *name = "bcde"; *name != '\0'; name++) {
        char path[2] = { *name, '\0' };

        assert_false(vimnode_u64(vimdump_root(d), path, &n));
    }
    vimdump_free(d);
}

/* ---- ids ---- */

static void expect_ids(const char *text, const unsigned *want, size_t count)
{
    struct vm_problem *problems;
    size_t n, bad;
    unsigned *ids;
    struct err e;

    assert_int_equal(inventory_read_ids(text, &ids, &n, &problems, &bad, &e), 0);
    assert_int_equal(n, count);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(ids[i], want[i]);
    free(ids);
    free(problems);
}

static void ids_come_from_real_rows_with_notes_between(void **state)
{
    static const unsigned want[] = { 10, 12, 2 };

    (void)state;
    expect_ids(
        "Vmid           Name                                      File                     "
        "               Guest OS          Version      Annotation\n"
        "10     vm1       [ds2] vm1_1/vm1_1.vmx       windows8Server64Guest    vmx-17\n"
        "12     vm2           [ds1] vm2/vm2.vmx               vmwarePhoton64Guest      vmx-13"
        "    First line of a note that an appliance image ships with.\n\n"
        "   A second paragraph of that note, indented.\n\nanother line\n"
        "2      vm4             [ds2] vm4/vm4.vmx                       windows2019srv_64Guest"
        "   vmx-17                                                             \n",
        want, 3);
}

static void hostile_names_are_still_rows(void **state)
{
    static const unsigned want[] = { 1, 2, 3, 4, 6 };

    (void)state;
    expect_ids("Vmid   Name   File   Guest OS   Version   Annotation\n"
               "1      [x] (a) #7 \"q\"   [ds 1] a b/a [b].vmx   otherGuest   vmx-8   \n"
               "2      vmx-9   [ds] vmx-9/vmx-9.vmx   otherGuest   vmx-10\n"
               "3      a%2fb   [ds] a/a.vmx   otherGuest   vmx-21   5      n   [d] n.vmx g\n"
               "4      name with\na newline   [ds] n/n.vmx   otherGuest   vmx-21\n"
               "5 words of a note\n"
               "6      t   [ds] t/t.vmtx   otherGuest   vmx-21\n",
               want, 5);
}

static void a_note_that_looks_like_a_row_costs_a_question_only(void **state)
{
    /* 99 does not exist: get.summary says so, and it is skipped. */
    static const unsigned want[] = { 1, 99 };

    (void)state;
    expect_ids("Vmid   Name   File   Guest OS   Version   Annotation\n"
               "1      a   [ds] a/a.vmx   otherGuest   vmx-8   a note\n"
               "99     b   [ds] b/b.vmx   otherGuest   vmx-8   imitated\n"
               "1      b   [ds] b/b.vmx   otherGuest   vmx-8   imitated again\n",
               want, 2);
}

static void invalid_vms_are_told_apart(void **state)
{
    struct vm_problem *problems;
    size_t n, bad;
    unsigned *ids;
    struct err e;

    (void)state;
    assert_int_equal(inventory_read_ids("Skipping invalid VM '30'\nVmid   Name   File\n"
                                        "Skipping invalid VM '31'\n",
                                        &ids, &n, &problems, &bad, &e),
                     0);
    assert_int_equal(n, 0);
    assert_int_equal(bad, 2);
    assert_int_equal(problems[0].vmid, 30);
    assert_int_equal(problems[1].vmid, 31);
    free(problems);
    free(ids);
    assert_int_equal(inventory_read_ids("", &ids, &n, &problems, &bad, &e), -1);
    assert_int_equal(e.code, ERR_CORRUPT);
}

/* ---- summaries ---- */

#define SUMMARY(vm, name, path)                                                                    \
    "Listsummary:\n\n(vim.vm.Summary) {\n   vm = 'vim.VirtualMachine:" vm "', \n"                  \
    "   runtime = (vim.vm.RuntimeInfo) {\n      connectionState = \"connected\", \n"               \
    "      powerState = \"suspended\", \n      question = (vim.vm.QuestionInfo) {\n"               \
    "         id = \"27\"\n      }, \n      consolidationNeeded = true\n   }, \n"                  \
    "   config = (vim.vm.Summary.ConfigSummary) {\n      name = \"" name "\", \n"                  \
    "      template = false, \n      vmPathName = \"" path "\", \n      memorySizeMB = 4096, \n"   \
    "      numCpu = 2, \n      uuid = \"564d9c9d\", \n      instanceUuid = \"52aa\", \n"           \
    "      guestId = \"otherGuest\", \n      guestFullName = <unset>, \n"                          \
    "      annotation = \"x\"\n   }, \n   storage = (vim.vm.Summary.StorageSummary) {\n"           \
    "      committed = 1000, \n      uncommitted = 24\n   }\n}\n"

static void a_summary_becomes_a_vm(void **state)
{
    static const char text[] = SUMMARY("9", "a \"b\"\nc [d]", "[ds 1] a/a.vmx");
    struct vm vm;
    struct err e;

    (void)state;
    assert_int_equal(inventory_read_summary(text, sizeof text - 1, 9, &vm, &e), 0);
    assert_string_equal(vm.name, "a \"b\"\nc [d]");
    assert_string_equal(vm.vmx, "[ds 1] a/a.vmx");
    assert_string_equal(vm.guest, "otherGuest");
    assert_int_equal(vm.power, VM_SUSPENDED);
    assert_int_equal(vm.cpus, 2);
    assert_true(vm.memory_bytes == UINT64_C(4) << 30);
    assert_true(vm.question_pending && vm.consolidation_needed && vm.connected && !vm.is_template);
    assert_true(vm.committed_bytes == 1000 && vm.uncommitted_bytes == 24);
    vm_free(&vm);
}

static void a_summary_of_another_vm_is_refused(void **state)
{
    static const char text[] = SUMMARY("9", "a", "[ds] a/a.vmx");
    static const char bad_path[] = SUMMARY("9", "a", "a.vmx");
    struct vm vm;
    struct err e;

    (void)state;
    assert_int_equal(inventory_read_summary(text, sizeof text - 1, 10, &vm, &e), -1);
    assert_int_equal(e.code, ERR_CORRUPT);
    assert_int_equal(inventory_read_summary(bad_path, sizeof bad_path - 1, 9, &vm, &e), -1);
    assert_int_equal(e.code, ERR_CORRUPT);
}

/* ---- disks ---- */

#define DISK(key, controller, unit, backing)                                                       \
    "   (vim.vm.device.VirtualDisk) {\n      key = " key ", \n"                                    \
    "      deviceInfo = (vim.Description) {\n         label = \"Hard disk 1\", \n"                 \
    "         summary = \"209,715,200 KB\"\n      }, \n" backing                                   \
    "      controllerKey = " controller ", \n      unitNumber = " unit ", \n"                      \
    "      capacityInKB = 209715200\n   }"

#define FLAT                                                                                       \
    "      backing = (vim.vm.device.VirtualDisk.FlatVer2BackingInfo) {\n"                          \
    "         fileName = \"[ds] a/a-000002.vmdk\", \n         diskMode = \"persistent\", \n"       \
    "         thinProvisioned = true, \n         uuid = \"6000C29b-1\", \n"                        \
    "         parent = (vim.vm.device.VirtualDisk.FlatVer2BackingInfo) {\n"                        \
    "            fileName = \"[ds] a/a-000001.vmdk\", \n"                                          \
    "            parent = (vim.vm.device.VirtualDisk.FlatVer2BackingInfo) {\n"                     \
    "               fileName = \"[ds] a/a.vmdk\", \n"                                              \
    "               parent = (vim.vm.device.VirtualDisk.FlatVer2BackingInfo) null\n"               \
    "            }\n         }, \n         sharing = \"sharingNone\"\n      }, \n"

#define RDM                                                                                        \
    "      backing = (vim.vm.device.VirtualDisk.RawDiskMappingVer1BackingInfo) {\n"                \
    "         fileName = \"[ds] a/r.vmdk\", \n         compatibilityMode = \"physicalMode\", \n"   \
    "         diskMode = \"independent_persistent\"\n      }, \n"

#define CONTROLLERS                                                                                \
    "   (vim.vm.device.VirtualIDEController) {\n      key = 200, \n      busNumber = 0\n   }, \n"  \
    "   (vim.vm.device.VirtualLsiLogicSASController) {\n      key = 1001, \n"                      \
    "      busNumber = 1, \n      sharedBus = \"noSharing\"\n   }, \n"                             \
    "   (vim.vm.device.VirtualNVMEController) {\n      key = 31000, \n      busNumber = 0\n   }, " \
    "\n"

static void disks_get_slots_kinds_and_chains(void **state)
{
    static const char text[] = "Devices:\n\n(vim.vm.device.VirtualDevice) [\n" CONTROLLERS DISK(
        "2016", "1001", "10", FLAT) ", \n" DISK("2017", "1001", "2", RDM) ", \n" DISK("32000",
                                                                                      "31000", "0",
                                                                                      FLAT) "\n]\n";
    struct vm_disks d;
    struct err e;

    (void)state;
    assert_int_equal(inventory_read_disks(text, sizeof text - 1, &d, &e), 0);
    assert_int_equal(d.count, 3);
    assert_string_equal(d.items[0].slot, "nvme0:0");
    assert_string_equal(d.items[1].slot, "scsi1:2");
    assert_string_equal(d.items[2].slot, "scsi1:10");
    assert_int_equal(d.items[1].kind, VM_DISK_RDM_PHYSICAL);
    assert_true(d.items[1].independent);
    assert_true(d.items[2].capacity_bytes == UINT64_C(209715200) * 1024);
    assert_true(d.items[2].thin && !d.items[2].shared && !d.items[2].independent);
    assert_string_equal(d.items[2].backing, "FlatVer2");
    assert_int_equal(d.items[2].parent_count, 2);
    assert_string_equal(d.items[2].parents[1], "[ds] a/a.vmdk");
    vm_disks_free(&d);
}

static void disks_that_make_no_sense_are_refused(void **state)
{
    static const char no_controller[] =
        "(vim.vm.device.VirtualDevice) [\n" DISK("2", "9", "0", FLAT) "\n]\n";
    static const char twice[] = "(vim.vm.device.VirtualDevice) [\n" CONTROLLERS DISK(
        "2", "200", "0", FLAT) ", \n" DISK("3", "200", "0", FLAT) "\n]\n";
    static const char unit[] = "(vim.vm.device.VirtualDevice) [\n" CONTROLLERS DISK(
        "2", "200", "99999999999999999999", FLAT) "\n]\n";
    struct vm_disks d;
    struct err e;

    (void)state;
    assert_int_equal(inventory_read_disks(no_controller, sizeof no_controller - 1, &d, &e), -1);
    assert_int_equal(e.code, ERR_CORRUPT);
    assert_int_equal(inventory_read_disks(twice, sizeof twice - 1, &d, &e), -1);
    assert_int_equal(e.code, ERR_CORRUPT);
    assert_int_equal(inventory_read_disks(unit, sizeof unit - 1, &d, &e), -1);
    assert_int_equal(e.code, ERR_CORRUPT);
}

/* ---- selection ---- */

static void patterns_fit_whole_names(void **state)
{
    (void)state;
    assert_true(vm_name_fits("web01", "web*"));
    assert_true(vm_name_fits("web01", "*"));
    assert_true(vm_name_fits("", "*"));
    assert_true(vm_name_fits("web01", "w?b0?"));
    assert_true(vm_name_fits("caf\xc3\xa9", "caf?"));
    assert_true(vm_name_fits("a*b", "a*b"));
    assert_false(vm_name_fits("web01", "web"));
    assert_false(vm_name_fits("web01", "?"));
    assert_false(vm_name_fits("xweb", "web*"));
    assert_true(vm_name_fits("aaaaaaaaaaaaaaaaaaaaaaaab", "*a*a*a*a*b"));
}

static void operands_pick_vms(void **state)
{
    struct vm items[] = {
        { .vmid = 1,
          .name = "web",
          .vmx = "[ds] w/w.vmx",
          .uuid = "564d0001-0000-0000-0000-000000000001",
          .instance_uuid = "52000000-0000-0000-0000-000000000001" },
        { .vmid = 2,
          .name = "web*",
          .vmx = "[ds] x/x.vmx",
          .uuid = "564d0001-0000-0000-0000-000000000001",
          .instance_uuid = "52000000-0000-0000-0000-000000000002" },
        { .vmid = 3, .name = "web2", .vmx = "[ds] y/y.vmx" },
        { .vmid = 12, .name = "twin", .vmx = "[ds] a/a.vmx" },
        { .vmid = 13, .name = "twin", .vmx = "[ds] b/b.vmx" },
    };
    struct vm_list l = { .items = items, .count = 5 };
    size_t picked[5], n;
    struct err e;

    (void)state;
    assert_int_equal(vm_select(&l, "web", picked, &n, &e), 0);
    assert_true(n == 1 && picked[0] == 0);
    assert_int_equal(vm_select(&l, "web*", picked, &n, &e), 0); /* the literal name comes first */
    assert_true(n == 1 && picked[0] == 1);
    assert_int_equal(vm_select(&l, "we?*", picked, &n, &e), 0);
    assert_int_equal(n, 3);
    assert_int_equal(vm_select(&l, "#12", picked, &n, &e), 0);
    assert_true(n == 1 && picked[0] == 3);
    assert_int_equal(vm_select(&l, "uuid:5200000000000000-0000-000000000002", picked, &n, &e), 0);
    assert_true(n == 1 && picked[0] == 1);
    assert_int_equal(vm_select(&l, "twin", picked, &n, &e), -1);
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_non_null(strstr(e.text, "#12"));
    assert_non_null(strstr(e.text, "[ds] b/b.vmx"));
    assert_int_equal(vm_select(&l, "uuid:564d0001-0000-0000-0000-000000000001", picked, &n, &e),
                     -1);
    assert_int_equal(vm_select(&l, "uuid:564d", picked, &n, &e), -1);
    assert_int_equal(vm_select(&l, "WEB", picked, &n, &e), -1);
    assert_int_equal(vm_select(&l, "#1x", picked, &n, &e), -1);
    assert_int_equal(vm_select(&l, "", picked, &n, &e), -1);
    assert_int_equal(e.code, ERR_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_dump_is_read_by_path),
        cmocka_unit_test(quotes_and_newlines_stay_inside_a_string),
        cmocka_unit_test(a_name_that_imitates_fields_is_refused),
        cmocka_unit_test(a_dump_that_is_cut_anywhere_is_an_error),
        cmocka_unit_test(depth_items_and_bytes_are_limited),
        cmocka_unit_test(numbers_out_of_range_are_no_numbers),
        cmocka_unit_test(ids_come_from_real_rows_with_notes_between),
        cmocka_unit_test(hostile_names_are_still_rows),
        cmocka_unit_test(a_note_that_looks_like_a_row_costs_a_question_only),
        cmocka_unit_test(invalid_vms_are_told_apart),
        cmocka_unit_test(a_summary_becomes_a_vm),
        cmocka_unit_test(a_summary_of_another_vm_is_refused),
        cmocka_unit_test(disks_get_slots_kinds_and_chains),
        cmocka_unit_test(disks_that_make_no_sense_are_refused),
        cmocka_unit_test(patterns_fit_whole_names),
        cmocka_unit_test(operands_pick_vms),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
