/* The manual page in mdoc, see mdoc(7). */

#include "pages.h"

#include <ctype.h>
#include <string.h>

#define TEXT_COLUMNS 78

/* One word as it is, whatever roff makes of its characters. */
static void print_word(FILE *out, const char *word, size_t bytes, bool begins_line)
{
    if (begins_line && bytes && strchr(".'", word[0]))
        fputs("\\&", out);
    for (size_t i = 0; i < bytes; i++) {
        if (word[i] == '\\')
            fputs("\\e", out);
        else if (word[i] == '-')
            fputs("\\-", out);
        else
            fputc(word[i], out);
    }
}

static bool ends_sentence(const char *word, size_t bytes)
{
    return bytes && strchr(".?!", word[bytes - 1]);
}

/* Words of a text; sentences begin on lines of their own, line feeds begin paragraphs. */
static void print_text(FILE *out, const char *text)
{
    size_t column = 0;

    while (*text) {
        size_t bytes = strcspn(text, " \n");

        if (column && column + 1 + bytes > TEXT_COLUMNS) {
            fputc('\n', out);
            column = 0;
        }
        if (bytes) {
            if (column)
                fputc(' ', out);
            print_word(out, text, bytes, !column);
            column += bytes + 1;
        }
        if (column && (ends_sentence(text, bytes) || text[bytes] != ' ')) {
            fputc('\n', out);
            column = 0;
        }
        if (text[bytes] == '\n' && text[bytes + 1] != '\n' && text[bytes + 1])
            fputs(".Pp\n", out);
        text += bytes + (text[bytes] != 0);
    }
}

/* Lines as they are. */
static void print_lines(FILE *out, const char *text)
{
    fputs(".Bd -literal -compact\n", out);
    while (*text) {
        size_t bytes = strcspn(text, "\n");

        print_word(out, text, bytes, true);
        fputc('\n', out);
        text += bytes + (text[bytes] != 0);
    }
    fputs(".Ed\n", out);
}

static void print_aliases(FILE *out, const struct cli_option *option)
{
    const char *between = "(also";

    for (const struct cli_alias *alias = cli_aliases; alias->name; alias++) {
        if (strcmp(alias->option, option->name) != 0)
            continue;
        fprintf(out, "%s\n.Fl \\-", between);
        print_word(out, alias->name, strlen(alias->name), false);
        between = " ,";
    }
    if (*between == ' ')
        fputs(" )\n", out);
}

static void print_option(FILE *out, const struct cli_option *option)
{
    fputs(".It ", out);
    if (option->letter)
        fprintf(out, "Fl %c , ", option->letter);
    fputs("Fl \\-", out);
    print_word(out, option->name, strlen(option->name), false);
    if (option->value_name)
        fprintf(out, " Ar %s", option->value_name);
    fputc('\n', out);
    print_text(out, option->help);
    print_aliases(out, option);
}

static void print_options(FILE *out, const struct cli_command *command)
{
    const struct cli_command *first = pages_first_alike(command);

    if (first != command) {
        fprintf(out, ".Pp\nThe options are those of\n.Nm\n.Cm %s .\n", first->name);
        return;
    }
    fputs(".Bl -tag -width Ds\n", out);
    for (const struct cli_option *option = cli_options; option->name; option++)
        if (pages_shown(option, command))
            print_option(out, option);
    fputs(".El\n", out);
}

static void print_commands(FILE *out)
{
    for (const struct cli_command *command = cli_commands; command->name; command++) {
        fprintf(out, ".Ss lorafold %s\n", command->name);
        fprintf(out, "%c", toupper((unsigned char)command->summary[0]));
        print_text(out, command->summary + 1);
        fprintf(out, ".Pp\n.Nm\n.Cm %s\n", command->name);
        print_text(out, command->usage);
        fputs(".Pp\n", out);
        print_text(out, command->about);
        print_options(out, command);
        fputs(".Pp\nExamples:\n.Pp\n", out);
        print_lines(out, command->examples);
    }
}

/* Returns the row of the topic. */
static size_t print_topic(FILE *out, const char *name)
{
    const struct cli_topic *topic = cli_topic_by_name(name);

    if (!topic)
        pages_fail("the template of the manual page names the topic '%s', which is none", name);
    print_lines(out, topic->text);
    return (size_t)(topic - cli_topics);
}

void pages_manual(FILE *template, FILE *out)
{
    bool commands = false;
    uint64_t topics = 0; /* one bit per row of cli_topics */
    char line[1024];

    while (fgets(line, sizeof(line), template)) {
        if (strcmp(line, "@commands\n") == 0) {
            print_commands(out);
            commands = true;
        } else if (strncmp(line, "@topic ", 7) == 0) {
            line[strcspn(line, "\n")] = '\0';
            topics |= UINT64_C(1) << print_topic(out, line + 7);
        } else {
            fputs(line, out);
        }
    }
    if (!commands)
        pages_fail("tools/pages/lorafold.1.in needs a line '@commands'");
    for (size_t i = 0; cli_topics[i].name; i++)
        if (!(topics >> i & 1))
            pages_fail("tools/pages/lorafold.1.in needs a section with a line '@topic %s'",
                       cli_topics[i].name);
}
