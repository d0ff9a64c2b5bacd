#include "pages.h"

#include <string.h>

/* Actions of _arguments. */
static const char *const actions[] = {
    [PAGES_NOTHING] = " ",
    [PAGES_DIRECTORIES] = "_files -/",
    [PAGES_FILES] = "_files",
    [PAGES_MODELS] = "_files -g \"*.safetensors(-.)\"",
    [PAGES_TOPICS] = "_lorafold_topics",
};

/* Inside of single quotes, in a part of a specification that ends at ':' or ']'. */
static void print_part(FILE *out, const char *text)
{
    for (; *text && *text != '\n'; text++) {
        if (*text == '\'')
            fputs("'\\''", out);
        else if (strchr("[]:\\", *text))
            fprintf(out, "\\%c", *text);
        else
            fputc(*text, out);
    }
}

static void print_action(FILE *out, const struct cli_option *option)
{
    const char *between = "";

    if (!option->value_name)
        return;
    fputc(':', out);
    print_part(out, option->value_name);
    fputc(':', out);
    if (!option->choices) {
        fputs(actions[pages_values_of(option->value_name, NULL)], out);
        return;
    }
    fputc('(', out);
    for (const struct cli_choice *choice = option->choices; choice->name; choice++) {
        if (!pages_offered(option, choice))
            continue;
        fprintf(out, "%s%s", between, choice->name);
        between = " ";
    }
    fputc(')', out);
}

static void print_option(FILE *out, const struct cli_option *option)
{
    const char *letter_end = option->value_name ? "+" : "";
    const char *name_end = option->value_name ? "=" : "";
    bool often = option->kind == CLI_ADAPTER || option->kind == CLI_LIST;

    fputs(" \\\n            ", out);
    if (option->letter && often)
        fprintf(out, "'*'{-%c%s,--%s%s}'", option->letter, letter_end, option->name, name_end);
    else if (option->letter)
        fprintf(out, "'(-%c --%s)'{-%c%s,--%s%s}'", option->letter, option->name, option->letter,
                letter_end, option->name, name_end);
    else
        fprintf(out, "'%s--%s%s", often ? "*" : "", option->name, name_end);
    fputc('[', out);
    print_part(out, option->help);
    fputc(']', out);
    print_action(out, option);
    fputc('\'', out);
}

static void print_command(FILE *out, const struct cli_command *command)
{
    if (!pages_print_alike(out, "        ", command))
        return;
    fputs(")\n        _arguments -s -S :", out);
    for (const struct cli_option *option = cli_options; option->name; option++)
        if (pages_shown(option, command))
            print_option(out, option);
    fprintf(out, " \\\n            '1:%s:%s' && ret=0\n        ;;\n", command->argument,
            actions[pages_values_of(command->argument, NULL)]);
}

static void print_described(FILE *out, const char *name, const char *summary)
{
    fprintf(out, "        '%s:", name);
    print_part(out, summary);
    fputs("'\n", out);
}

static void print_lists(FILE *out)
{
    fputs("_lorafold_commands()\n{\n    local -a commands\n    commands=(\n", out);
    for (const struct cli_command *command = cli_commands; command->name; command++)
        print_described(out, command->name, command->summary);
    fputs("    )\n    _describe -t commands command commands\n}\n\n"
          "_lorafold_topics()\n{\n    local -a topics\n    topics=(\n",
          out);
    for (const struct cli_topic *topic = cli_topics; topic->name; topic++)
        print_described(out, topic->name, topic->summary);
    fputs("    )\n    _lorafold_commands\n    _describe -t topics text topics\n}\n\n", out);
}

void pages_zsh(FILE *out)
{
    fputs("#compdef lorafold\n# zsh completion of lorafold, made by its build from its table of "
          "options\n\n",
          out);
    print_lists(out);
    fputs("_lorafold()\n"
          "{\n"
          "    local curcontext=$curcontext context state state_descr line ret=1\n"
          "    typeset -A opt_args\n"
          "\n"
          "    _arguments -C -S \\\n"
          "        '(- *)'{-h,--help}'[show the commands]' \\\n"
          "        '(- *)'{-V,--version}'[show the version of the program]' \\\n"
          "        '1:command:_lorafold_commands' '*::argument:->argument' && ret=0\n"
          "    if [[ $state == argument ]]; then\n"
          "        curcontext=${curcontext%:*:*}:lorafold-$words[1]:\n"
          "        case $words[1] in\n",
          out);
    for (const struct cli_command *command = cli_commands; command->name; command++)
        print_command(out, command);
    fputs("        esac\n"
          "    fi\n"
          "    return ret\n"
          "}\n\n"
          "_lorafold \"$@\"\n",
          out);
}
