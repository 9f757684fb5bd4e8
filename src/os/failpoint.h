/* failpoint.h - named places where a test lets the process die.
 *
 * The product has none: FAILPOINT("x") compiles to nothing. In a build with -DDEED_FAILPOINTS (make
 * VARIANT=failpoints) each is a point that kills its own process by SIGKILL when it is told to by
 * the environment:
 *
 *     DEEDBOOK_FAILPOINT=name:n       at the n-th time that the point of this name is passed
 *     DEEDBOOK_FAILPOINT_HITS=FILE    count how often each is passed: 8 bytes a point, in the order
 *                                     of the list, in little endian; the file outlives the process
 *
 * A point's name is file:function:what, and for the second of the same name "#2" behind it, so that
 * adding a line renames none. What changes the disk through os.h has a point before it and one
 * after it wherever it is called, without a word: what is added to the engine is covered when it
 * lands. tests/integration/failpoints.py goes through them all. */
#ifndef OS_FAILPOINT_H
#define OS_FAILPOINT_H

#ifndef DEED_FAILPOINTS

#define FAILPOINT(what) ((void)0)

#else

#include <stddef.h>
#include <stdint.h>

struct failpoint {
    const char *file, *function, *what;
    int line; /* says only which is the second of a name */
};

void failpoint_pass(struct failpoint *const *point);

/* Each point has a number, as the linker happens to put them, and a name. */
#define FAILPOINT_NAME_SIZE 160
size_t failpoint_count(void);
void failpoint_name(size_t number, char name[FAILPOINT_NAME_SIZE]);

/* The linker puts the section's entries of all files behind one another. What the compiler finds to
 * be dead code, a bug that is not planted for one, has no point. */
#define FAILPOINT(point_what)                                                                      \
    do {                                                                                           \
        static struct failpoint failpoint_here = {__FILE__, __func__, point_what, __LINE__};       \
        static struct failpoint *const failpoint_entry                                             \
            __attribute__((section("failpoints"))) = &failpoint_here;                              \
        failpoint_pass(&failpoint_entry);                                                          \
    } while (0)

#define FAILPOINTS_AROUND(point_what, call)                                                        \
    ({                                                                                             \
        FAILPOINT(point_what "-before");                                                           \
        __typeof__(call) failpoint_result = (call);                                                \
        FAILPOINT(point_what "-after");                                                            \
        failpoint_result;                                                                          \
    })

#endif
#endif
