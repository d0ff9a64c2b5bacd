/*
 * cli_text.h - text that is safe to show, and how near two names are
 *
 * Arguments and sentences may hold any bytes.  Control characters and bytes that
 * are not UTF-8 are shown as \xNN; JSON has \u00NN for the former and U+FFFD for the latter.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef CLI_TEXT_H
#define CLI_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define CLI_QUOTED_BYTES 256

/* A safe copy of `text` in `buf`; what is too long ends in "...".  Returns `buf`. */
const char *cli_quote(char *buf, size_t buf_bytes, const char *text);

/* Write a sentence of any length, made safe, on one line. */
void cli_print_safe(FILE *file, const char *text);

/* Write `text` as a JSON string with its quotes. */
void cli_print_json(FILE *file, const char *text);

/* "16.06 GB", "512 bytes": decimal units.  Returns `buf`. */
const char *cli_format_bytes(char *buf, size_t buf_bytes, double bytes);

/* Equal names: '-' and '_' are the same character, case counts.  `text` has a length, no NUL. */
bool cli_name_equal(const char *name, const char *text, size_t text_bytes);

/* Of `best_distance` and the distance of the two names the smaller one is kept; true if that is
 * the new one.  Names longer than 64 bytes are never near. */
bool cli_nearer(const char *name, const char *typed, size_t *best_distance);

/* What cli_nearer() starts from: names farther than this from `typed` are no suggestion. */
size_t cli_nearest_limit(const char *typed);

#endif
