"""esxcli and localcli, as far as vmferry and its tests ask them."""

import os
import re


OPTION_EXEC = "/User/execInstalledOnly"


class EsxcliError(Exception):
    pass


def table(head, rows, right=()):
    """Columns two blanks apart; those in `right` are right-aligned."""
    widths = [max(len(r[i]) for r in [head] + rows) for i in range(len(head))]
    lines = ["  ".join(h.ljust(w) if i not in right else h.rjust(w)
                       for i, (h, w) in enumerate(zip(head, widths))),
             "  ".join("-" * w for w in widths)]
    for r in rows:
        lines.append("  ".join(c.rjust(w) if i in right else c.ljust(w)
                               for i, (c, w) in enumerate(zip(r, widths))))
    return "\n".join(lines) + "\n"


class Esxcli:
    def __init__(self, host):
        self.host = host

    def run(self, call):
        knobs = self.host.knobs
        if knobs["esxcli"] == "fail":
            call.err("Connect to localhost failed: Connection failure\n")
            return 1
        words, options = split_words(call.argv[1:])
        name = "_".join(words).replace("-", "_")
        method = getattr(self, "do_" + name, None)
        if method is None:
            call.err("Error: Unknown command or namespace %s\n" % " ".join(words))
            return 1
        try:
            text = method(options) or ""
        except EsxcliError as e:
            call.err("%s\n" % e)
            return 1
        if knobs["esxcli"] == "cut":
            text = text[:len(text) // 2]
        call.out(text)
        return 0

    def do_system_version_get(self, _):
        f = self.host.facts
        return ("   Product: VMware ESXi\n   Version: %s\n   Build: Releasebuild-%s\n"
                "   Update: %s\n   Patch: %s\n" % (f["version"], f["build"], f["update"],
                                                  f["patch"]))

    def do_system_uuid_get(self, _):
        return self.host.uuid + "\n"

    def do_system_hostname_get(self, _):
        return ("   Domain Name: \n   Fully Qualified Domain Name: localhost\n"
                "   Host Name: localhost\n")

    def do_system_stats_uptime_get(self, _):
        return "%d\n" % self.host.uptime_us()

    def do_storage_filesystem_list(self, options):
        rows = []
        for d in self.host.datastores:
            rows.append(("/vmfs/volumes/" + d.uuid, d.name, d.uuid, "true", d.kind, str(d.size),
                         str(self.host.free_bytes(d))))
        boot = "4a1b2c3d-5e6f7a8b-9c0d-1e2f3a4b5c6d"
        rows.append(("/vmfs/volumes/" + boot, "", boot, "true", "vfat", "261853184", "164687872"))
        head = ("Mount Point", "Volume Name", "UUID", "Mounted", "Type", "Size", "Free")
        if options.get("formatter") == "csv":
            order = (6, 0, 3, 5, 4, 2, 1)
            names = ("Free", "MountPoint", "Mounted", "Size", "Type", "UUID", "VolumeName")
            return csv(names, [[r[i] for i in order] for r in rows])
        return table(head, rows, right=(3, 5, 6))

    def do_vm_process_list(self, _):
        out = []
        for m in self.host.machines.values():
            if m.power != "on" or not m.valid():
                continue
            h = re.sub("[^0-9a-f]", "", m.vmx().get("uuid.bios", ""))
            pairs = re.findall("..", h)
            out.append("%s\n   World ID: %d\n   Process ID: 0\n   VMX Cartel ID: %d\n"
                       "   UUID: %s-%s\n   Display Name: %s\n   Config File: %s\n" % (
                           m.name, 2100001 + m.vmid * 10, 2100000 + m.vmid * 10,
                           " ".join(pairs[:8]), " ".join(pairs[8:]), m.name, m.record["vmx"]))
        return "\n".join(out)

    # options

    def do_system_settings_advanced_list(self, options):
        name = options.get("o") or options.get("option")
        if name == OPTION_EXEC and self.host.knobs["exec-installed-only"] != "absent":
            return option_block(name, int(self.host.knobs["exec-installed-only"]), 1, 1,
                                "Execute only installed binaries on the host.")
        if name in self.host.options:
            return option_block(name, self.host.options[name], 0, 1, "")
        raise EsxcliError("Unable to find option %s" % (name or "").rsplit("/", 1)[-1])

    def do_system_settings_advanced_set(self, options):
        name = options.get("o") or options.get("option")
        value = options.get("i") or options.get("int-value")
        if name is None or value is None:
            raise EsxcliError("Error: Missing required parameter -o|--option")
        if name == OPTION_EXEC and self.host.knobs["exec-installed-only"] != "absent":
            if value not in ("0", "1"):
                raise EsxcliError("Unable to set option: value out of range")
            if self.host.knobs["exec-boot"] == "TRUE" and value == "0":
                raise EsxcliError("Unable to set option execInstalledOnly: Operation not permitted")
            self.host.knobs.set("exec-installed-only", value)
            self.host.changed()
            return ""
        if name in self.host.options:
            self.host.options[name] = int(value)
            self.host.save()
            return ""
        raise EsxcliError("Unable to find option %s" % name.rsplit("/", 1)[-1])

    def do_system_settings_kernel_list(self, _):
        value = self.host.knobs["exec-boot"]
        return table(("Name", "Type", "Configured", "Runtime", "Default", "Description"),
                     [("execInstalledOnly", "Bool", value, value, "FALSE",
                       "Execute only signed binaries")])

    def do_system_module_load(self, _):
        return ""

    def do_system_module_list(self, _):
        return table(("Name", "Is Loaded", "Is Enabled"), [("vmkernel", "true", "true"),
                                                           ("multiextent", "false", "true")],
                     right=(1, 2))

    def do_system_visorfs_ramdisk_list(self, _):
        tmp = os.statvfs(os.path.join(self.host.root, "tmp"))
        size = 262144
        used = (tmp.f_blocks - tmp.f_bfree) * tmp.f_frsize // 1024
        if self.host.knobs.on("tmp-full"):
            used = size
        return table(("Ramdisk Name", "System", "Include in Coredumps", "Reserved", "Maximum",
                      "Used", "Peak Used", "Free", "Reserved Free", "Maximum Inodes",
                      "Allocated Inodes", "Used Inodes", "Mount Point"),
                     [("tmp", "false", "false", "2048 KiB", "%d KiB" % size, "%d KiB" % used,
                       "%d KiB" % used, "%d %%" % (100 * (size - used) // max(1, size)), "100 %",
                       "8192", "256", "10", "/tmp")])

    # firewall

    def do_network_firewall_get(self, _):
        return "   Default Action: DROP\n   Enabled: %s\n   Loaded: true\n" % (
            "false" if self.host.knobs["firewall-out"] == "open" else "true")

    def rulesets(self):
        out = self.host.knobs["firewall-out"]
        closed = out not in ("profile", "open")
        rows = [("sshServer", True), ("sshClient", False), ("nfsClient", False), ("dhcp", True),
                ("dns", True), ("httpClient", False), ("NFC", not closed), ("HBR", not closed),
                ("vMotion", not closed), ("webAccess", True), ("vSphereClient", True),
                ("updateManager", not closed), ("faultTolerance", not closed)]
        return [(name, "true" if on else "false") for name, on in rows]

    def do_network_firewall_ruleset_list(self, options):
        rows = self.rulesets()
        if options.get("formatter") == "csv":
            return csv(("Enabled", "Name"), [(on, name) for name, on in rows])
        if self.host.profile == "6.7":
            return table(("Name", "Enabled"), rows, right=(1,))
        rows = [r + ("true", "true") for r in rows]
        return table(("Name", "Enabled", "Enable/Disable configurable", "Allowed IP configurable"),
                     rows, right=(1, 2, 3))

    def do_network_firewall_ruleset_rule_list(self, _):
        rows = [("sshServer", "Inbound", "TCP", "Dst", "22", "22"),
                ("NFC", "Outbound", "TCP", "Dst", "902", "902"),
                ("vMotion", "Outbound", "TCP", "Dst", "8000", "8000"),
                ("HBR", "Outbound", "TCP", "Dst", "31031", "31031"),
                ("HBR", "Outbound", "TCP", "Dst", "44046", "44046")]
        return table(("Ruleset", "Direction", "Protocol", "Port Type", "Port Begin", "Port End"),
                     rows, right=(4, 5))


def option_block(name, value, default, most, description):
    return ("   Path: %s\n   Type: integer\n   Int Value: %d\n   Default Int Value: %d\n"
            "   Min Value: 0\n   Max Value: %d\n   String Value: \n   Default String Value: \n"
            "   Valid Characters: \n   Description: %s\n" % (name, value, default, most,
                                                            description))


def csv(names, rows):
    return "".join(",".join(r) + ",\n" for r in [names] + [list(r) for r in rows])


def split_words(arguments):
    """Words of the command, and {option without dashes: value}."""
    words, options = [], {}
    at = 0
    while at < len(arguments):
        a = arguments[at]
        if a.startswith("--"):
            name, eq, value = a[2:].partition("=")
            if not eq and at + 1 < len(arguments) and name not in ("debug",):
                at += 1
                value = arguments[at]
            options[name] = value
        elif a.startswith("-") and len(a) > 1:
            at += 1
            options[a[1:]] = arguments[at] if at < len(arguments) else ""
        else:
            words.append(a)
        at += 1
    return words, options


