/* vmferry completion bash: the script comes from the tables of commands and options. */
#include <string.h>

#include "protocol/base/err.h"
#include "receiver/base/utf8.h"
#include "receiver/cli/app.h"
#include "receiver/cli/commands.h"

static void print_names(uint64_t set)
{
    for (unsigned id = 0; id < OPTION_COUNT; id++) {
        struct option_word w = options_word((enum option_id)id);

        if ((set & OPTION_BIT(id)) == 0)
            continue;
        printf(" --%s%s", w.long_name, w.takes_value && w.value_optional ? "=" : "");
        if (w.short_name != 0)
            printf(" -%c", w.short_name);
    }
}

/* case branches that complete the value of the option in $prev. */
static void print_values(void)
{
    for (unsigned id = 0; id < OPTION_COUNT; id++) {
        struct option_word w = options_word((enum option_id)id);

        if (!w.takes_value || w.value_optional)
            continue;
        printf("    --%s", w.long_name);
        if (w.short_name != 0)
            printf("|-%c", w.short_name);
        if (w.values == NULL)
            printf(") return ;;\n");
        else if (strcmp(w.values, "FILE") == 0)
            printf(") compopt -o filenames; COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n");
        else if (strcmp(w.values, "DIR") == 0)
            printf(") compopt -o filenames; COMPREPLY=($(compgen -d -- \"$cur\")); return ;;\n");
        else
            printf(") COMPREPLY=($(compgen -W '%s' -- \"$cur\")); return ;;\n", w.values);
    }
}

/* "value options": those whose next word is no command. */
static void print_takers(void)
{
    for (unsigned id = 0, shown = 0; id < OPTION_COUNT; id++) {
        struct option_word w = options_word((enum option_id)id);

        if (!w.takes_value || w.value_optional)
            continue;
        printf("%s--%s", shown++ > 0 ? "|" : "", w.long_name);
        if (w.short_name != 0)
            printf("|-%c", w.short_name);
    }
}

static void print_bash(void)
{
    printf("# bash completion for vmferry; made by `vmferry completion bash`.\n"
           "_vmferry()\n"
           "{\n"
           "  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}\n"
           "  local command='' i\n"
           "  COMPREPLY=()\n"
           "  case $prev in\n");
    print_values();
    printf("  esac\n"
           "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
           "    case ${COMP_WORDS[i]} in\n"
           "    ");
    print_takers();
    printf(") ((i++)) ;;\n"
           "    -*) ;;\n"
           "    *) command=${COMP_WORDS[i]}; break ;;\n"
           "    esac\n"
           "  done\n"
           "  case $command in\n"
           "  '')\n"
           "    if [[ $cur == -* ]]; then\n"
           "      COMPREPLY=($(compgen -W '");
    print_names(OPTIONS_COMMON);
    printf("' -- \"$cur\"))\n"
           "    else\n"
           "      COMPREPLY=($(compgen -W '");
    for (size_t i = 0; command_at(i) != NULL; i++) {
        if (!command_at(i)->hidden)
            printf(" %s", command_at(i)->name);
    }
    printf(" help' -- \"$cur\"))\n"
           "    fi ;;\n");
    for (size_t i = 0; command_at(i) != NULL; i++) {
        const struct command *c = command_at(i);

        printf("  %s)\n"
               "    if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W '",
               c->name);
        print_names(OPTIONS_COMMON | c->accepts);
        printf("' -- \"$cur\"))\n"
               "    else compopt -o filenames; COMPREPLY=($(compgen -f -- \"$cur\")); fi ;;\n");
    }
    printf("  esac\n"
           "  [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace\n"
           "}\n"
           "complete -F _vmferry vmferry\n");
}

int cmd_completion(struct app *app, struct err *e)
{
    char shown[80];

    if (strcmp(app->options->operands[0], "bash") == 0) {
        print_bash();
        return 0;
    }
    utf8_show(shown, sizeof shown, app->options->operands[0]);
    return err_set(e, ERR_USAGE, "no completion for \"%s\", only for bash", shown);
}
