#include "receiver/cli/agent_file.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/base/checked.h"
#include "protocol/base/err.h"

static const char agent_name[] = "vmferry-agent-x86_64";

static int is_file(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, R_OK) == 0;
}

int agent_find(const char *given, char out[AGENT_PATH_BYTES], struct err *e)
{
    static const char *const beside[] = { "", "../libexec/vmferry/" };
    char self[AGENT_PATH_BYTES];
    ssize_t count;
    char *end;

    if (given != NULL) {
        if (snprintf(out, AGENT_PATH_BYTES, "%s", given) >= AGENT_PATH_BYTES || !is_file(given))
            return err_set(e, ERR_USAGE, "--agent-file %s: no file that can be read", given);
        return 0;
    }
    count = readlink("/proc/self/exe", self, sizeof self - 1);
    self[count > 0 ? count : 0] = 0;
    end = strrchr(self, '/');
    for (size_t i = 0; end != NULL && i < ARRAY_COUNT(beside); i++) {
        if (snprintf(out, AGENT_PATH_BYTES, "%.*s/%s%s", (int)(end - self), self, beside[i],
                     agent_name) < AGENT_PATH_BYTES &&
            is_file(out))
            return 0;
    }
    snprintf(out, AGENT_PATH_BYTES, "%s/%s", VMFERRY_LIBEXEC_DIR, agent_name);
    if (is_file(out))
        return 0;
    return err_set(e, ERR_NOT_FOUND,
                   "%s is neither beside vmferry nor in %s; name it with "
                   "--agent-file",
                   agent_name, VMFERRY_LIBEXEC_DIR);
}
