#include "pages.h"

#include <string.h>

/* What _lorafold_offer in bash_frame calls it. */
static const char *const kinds[] = {
    [PAGES_NOTHING] = "nothing", [PAGES_WORDS] = "",        [PAGES_DIRECTORIES] = "directories",
    [PAGES_FILES] = "files",     [PAGES_MODELS] = "models", [PAGES_TOPICS] = "topics",
};

/* What does not depend on the tables.  Readline cuts words at '=' and ':' as well. */
static const char frame[] =
    "_lorafold_offer() # KIND or WORDS, for $word\n"
    "{\n"
    "    case $1 in\n"
    "    nothing) ;;\n"
    "    directories) compopt -o dirnames ;;\n"
    "    files) compopt -o default ;;\n"
    "    models)\n"
    "        compopt -o filenames -o plusdirs\n"
    "        mapfile -t COMPREPLY < <(compgen -f -X '!*.safetensors' -- \"$word\")\n"
    "        ;;\n"
    "    topics) _lorafold_offer \"$_lorafold_topics\" ;;\n"
    "    *) mapfile -t COMPREPLY < <(compgen -W \"$1\" -- \"$word\") ;;\n"
    "    esac\n"
    "}\n"
    "\n"
    "_lorafold()\n"
    "{\n"
    "    local word=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}\n"
    "    local command= values= argument= options= ended= i\n"
    "\n"
    "    COMPREPLY=()\n"
    "    if [[ $word == = ]]; then\n"
    "        word=\n"
    "    elif [[ $previous == = ]]; then\n"
    "        previous=${COMP_WORDS[COMP_CWORD - 2]}\n"
    "    fi\n"
    "    # The command is the first word that is neither an option nor the value of one.\n"
    "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
    "        case ${COMP_WORDS[i]} in\n"
    "        --) ended=yes ;;\n"
    "        -*)\n"
    "            if [[ ${COMP_WORDS[i + 1]} == = ]]; then\n"
    "                ((i += 2))\n"
    "            elif _lorafold_values \"${COMP_WORDS[i]}\"; then\n"
    "                ((i++))\n"
    "            fi\n"
    "            ;;\n"
    "        *) [[ $command ]] || command=${COMP_WORDS[i]} ;;\n"
    "        esac\n"
    "    done\n"
    "    _lorafold_command \"$command\"\n"
    "    if [[ $previous == : ]]; then\n"
    "        : # the weight of an adapter\n"
    "    elif [[ ! $ended ]] && _lorafold_values \"$previous\"; then\n"
    "        _lorafold_offer \"$values\"\n"
    "    elif [[ $word == -* && ! $ended ]]; then\n"
    "        _lorafold_offer \"$options\"\n"
    "    else\n"
    "        _lorafold_offer \"$argument\"\n"
    "    fi\n"
    "}\n"
    "\n"
    "complete -F _lorafold lorafold\n";

static void print_commands(FILE *out)
{
    for (const struct cli_command *command = cli_commands; command->name; command++)
        fprintf(out, "%s%s", command == cli_commands ? "" : " ", command->name);
}

static void print_spellings(FILE *out, const struct cli_option *option)
{
    fprintf(out, "    --%s", option->name);
    for (const struct cli_alias *alias = cli_aliases; alias->name; alias++)
        if (strcmp(alias->option, option->name) == 0)
            fprintf(out, " | --%s", alias->name);
    if (option->letter)
        fprintf(out, " | -%c", option->letter);
}

static void print_values(FILE *out)
{
    fputs("# Set `values` for the option $1; fails if it takes none.\n"
          "_lorafold_values()\n"
          "{\n"
          "    local name=$1\n"
          "\n"
          "    [[ $name != --* ]] || name=${name//_/-}\n"
          "    case $name in\n",
          out);
    for (const struct cli_option *option = cli_options; option->name; option++) {
        const char *between = "";

        if (option->hidden || !option->value_name)
            continue;
        print_spellings(out, option);
        fprintf(out, ") values='%s", kinds[pages_values_of(option->value_name, option->choices)]);
        for (const struct cli_choice *choice = option->choices; choice && choice->name; choice++) {
            if (!pages_offered(option, choice))
                continue;
            fprintf(out, "%s%s", between, choice->name);
            between = " ";
        }
        fputs("' ;;\n", out);
    }
    fputs("    *) return 1 ;;\n"
          "    esac\n"
          "}\n\n",
          out);
}

static void print_command(FILE *out, const struct cli_command *command)
{
    const char *between = "";

    if (!pages_print_alike(out, "    ", command))
        return;
    fprintf(out, ")\n        argument='%s'\n        options='",
            kinds[pages_values_of(command->argument, NULL)]);
    for (const struct cli_option *option = cli_options; option->name; option++) {
        if (!pages_shown(option, command))
            continue;
        fprintf(out, "%s--%s", between, option->name);
        between = " ";
        if (option->letter)
            fprintf(out, " -%c", option->letter);
    }
    fputs("'\n        ;;\n", out);
}

void pages_bash(FILE *out)
{
    fputs("# bash completion of lorafold, made by its build from its table of options\n\n"
          "_lorafold_topics='",
          out);
    print_commands(out);
    for (const struct cli_topic *topic = cli_topics; topic->name; topic++)
        fprintf(out, " %s", topic->name);
    fputs("'\n\n", out);
    print_values(out);
    fputs("# Set `argument` and `options` for the command $1, or before there is one.\n"
          "_lorafold_command()\n"
          "{\n"
          "    case $1 in\n"
          "    '')\n"
          "        argument='",
          out);
    print_commands(out);
    fputs("'\n        options='--help -h --version -V'\n        ;;\n", out);
    for (const struct cli_command *command = cli_commands; command->name; command++)
        print_command(out, command);
    fputs("    *) argument=nothing ;;\n"
          "    esac\n"
          "}\n\n",
          out);
    fputs(frame, out);
}
