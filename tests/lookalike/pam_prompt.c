/*
 * A PAM module with a prompt of its own, for the knob two-prompts: pam_unix remembers the first
 * answer and asks no second time.  Arguments: the prompt, then a file with the expected answer.
 *
 * The two functions of libpam that it needs are declared here, so that no package with PAM's
 * headers is wanted; their form has not changed since Linux-PAM 1.0.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROMPT_ECHO_OFF = 1, SUCCESS = 0, AUTH_ERR = 7, IGNORE = 25 };

int pam_prompt(void *handle, int style, char **response, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
int pam_sm_authenticate(void *handle, int flags, int argc, const char **argv);
int pam_sm_setcred(void *handle, int flags, int argc, const char **argv);

int pam_sm_authenticate(void *handle, int flags, int argc, const char **argv)
{
    char expected[512] = "";
    char *given = NULL;
    FILE *in;
    int rc;

    (void)flags;
    if (argc != 2)
        return AUTH_ERR;
    in = fopen(argv[1], "r");
    if (in == NULL || fgets(expected, sizeof expected, in) == NULL)
        expected[0] = 0;
    if (in != NULL)
        fclose(in);
    expected[strcspn(expected, "\n")] = 0;
    if (pam_prompt(handle, PROMPT_ECHO_OFF, &given, "%s ", argv[0]) != SUCCESS || given == NULL)
        return AUTH_ERR;
    rc = expected[0] != 0 && strcmp(given, expected) == 0 ? SUCCESS : AUTH_ERR;
    free(given);
    return rc;
}

int pam_sm_setcred(void *handle, int flags, int argc, const char **argv)
{
    (void)handle;
    (void)flags;
    (void)argc;
    (void)argv;
    return IGNORE;
}
