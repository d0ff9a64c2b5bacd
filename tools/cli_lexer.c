#include "cli_lexer.h"

#include "cli_options.h"
#include "cli_text.h"

#include <stdio.h>
#include <string.h>

/* The argument behind an option as its value, unless it looks like an option itself. */
static void take_next(struct cli_lexer *lexer, struct cli_token *token)
{
    char *next = lexer->index < lexer->argc ? lexer->argv[lexer->index] : NULL;

    token->value = next;
    if (!next || (next[0] == '-' && next[1])) {
        token->kind = CLI_TOKEN_VALUE_ABSENT;
        return;
    }
    lexer->index++;
}

static void lex_long(struct cli_lexer *lexer, struct cli_token *token, char *argument)
{
    char *equals = strchr(argument, '=');
    size_t bytes = equals ? (size_t)(equals - argument) : strlen(argument);
    char name[sizeof(token->spelling)];

    snprintf(name, sizeof(name), "%.*s", (int)(bytes < sizeof(name) ? bytes : sizeof(name)),
             argument);
    cli_quote(token->spelling, sizeof(token->spelling), name);
    token->option = cli_option_by_name(argument + 2, bytes - 2);
    if (!token->option) {
        token->kind = CLI_TOKEN_UNKNOWN;
    } else if (equals) {
        token->kind = cli_option_takes_value(token->option) ? CLI_TOKEN_OPTION
                                                            : CLI_TOKEN_VALUE_EXTRA;
        token->value = equals + 1;
    } else if (cli_option_takes_value(token->option)) {
        take_next(lexer, token);
    }
}

static void lex_letter(struct cli_lexer *lexer, struct cli_token *token)
{
    char name[3] = { '-', *lexer->letters++, '\0' };
    char *rest = *lexer->letters ? lexer->letters : NULL;

    cli_quote(token->spelling, sizeof(token->spelling), name);
    token->option = cli_option_by_letter(name[1]);
    lexer->letters = rest;
    if (!token->option) {
        token->kind = CLI_TOKEN_UNKNOWN;
        lexer->letters = NULL;
    } else if (cli_option_takes_value(token->option)) {
        lexer->letters = NULL;
        if (rest)
            token->value = rest[0] == '=' ? rest + 1 : rest;
        else
            take_next(lexer, token);
    } else if (rest && rest[0] == '=') {
        token->kind = CLI_TOKEN_VALUE_EXTRA;
        token->value = rest + 1;
        lexer->letters = NULL;
    }
}

void cli_lexer_next(struct cli_lexer *lexer, struct cli_token *token)
{
    char *argument;

    *token = (struct cli_token){ .kind = CLI_TOKEN_OPTION };
    if (lexer->letters) {
        lex_letter(lexer, token);
        return;
    }
    if (lexer->index >= lexer->argc) {
        token->kind = CLI_TOKEN_END;
        return;
    }
    argument = lexer->argv[lexer->index++];
    if (lexer->options_ended || argument[0] != '-' || !argument[1]) {
        token->kind = CLI_TOKEN_ARGUMENT;
        token->value = argument;
    } else if (strcmp(argument, "--") == 0) {
        lexer->options_ended = true;
        cli_lexer_next(lexer, token);
    } else if (argument[1] == '-') {
        lex_long(lexer, token, argument);
    } else {
        lexer->letters = argument + 1;
        lex_letter(lexer, token);
    }
}
