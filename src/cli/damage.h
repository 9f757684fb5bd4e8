/* damage.h - a damaged place of the log, as verify and repair print it. */
#ifndef CLI_DAMAGE_H
#define CLI_DAMAGE_H

#include "store/store.h"

/* A line of text, or of JSON, to stdout. */
void damage_print(const struct store_damage *damage, bool json);

#endif
