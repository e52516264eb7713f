"""Data objects as vim-cmd prints them: three blanks a level, `, ` between fields."""


class Obj:
    def __init__(self, kind, **fields):
        self.kind = kind
        self.fields = list(fields.items())


class Array:
    def __init__(self, kind, items):
        self.kind = kind
        self.items = list(items)


class Ref(str):
    """A reference: 'vim.VirtualMachine:3'."""


class Null(str):
    """(type) null"""


class Word(str):
    """Text that stands without quotes."""


def show(value, indent=0):
    pad = "   " * (indent + 1)
    end = "   " * indent
    if isinstance(value, Obj):
        rows = ["%s%s = %s" % (pad, name, show(v, indent + 1)) for name, v in value.fields]
        return "(%s) {\n%s\n%s}" % (value.kind, ", \n".join(rows), end)
    if isinstance(value, Array):
        if not value.items:
            return "(%s) []" % value.kind
        rows = [pad + show(v, indent + 1) for v in value.items]
        return "(%s) [\n%s\n%s]" % (value.kind, ", \n".join(rows), end)
    if isinstance(value, Ref):
        return "'%s'" % value
    if isinstance(value, Null):
        return "(%s) null" % value
    if isinstance(value, Word):
        return str(value)
    if value is None:
        return "<unset>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    return '"%s"' % value


def show_fault(fault, old=False):
    """The block of a fault; old: as 6.0 and before."""
    rows = []
    if old:
        rows.append("   dynamicType = <unset>, ")
    rows.append("   faultCause = (vmodl.MethodFault) null, ")
    if not old:
        rows.append("   faultMessage = <unset>, ")
    rows += ["   %s = %s, " % item for item in fault.fields.items()]
    rows.append('   msg = "%s"' % fault.message)
    return "(%s) {\n%s\n}\n" % (fault.kind, "\n".join(rows))
