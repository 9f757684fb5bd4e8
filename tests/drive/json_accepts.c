/* json_accepts.c - for tests/integration/json_differential.py: reads texts, each behind its length
 * as 4 little-endian bytes, and answers a line for each: "1" accepted, "0" refused, then what was
 * wrong. */
#include "json/json.h"

#include <stdio.h>
#include <stdlib.h>

int main(void)
{
    uint8_t head[4];
    while (fread(head, 1, 4, stdin) == 4) {
        size_t size = (size_t)head[0] | (size_t)head[1] << 8 | (size_t)head[2] << 16 |
                      (size_t)head[3] << 24;
        uint8_t *text = malloc(size + 1);
        if (text == NULL || fread(text, 1, size, stdin) != size) return 1;
        struct deed_error err = {0};
        deed_status status = json_check((deed_bytes){text, size}, 64, &err);
        printf("%d %s\n", status == DEED_OK, err.message);
        free(text);
    }
    return fflush(stdout) == 0 ? 0 : 1;
}
