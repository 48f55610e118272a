/*
 * hostile_calls.c: plays a list of kernel calls, written as text.
 *
 *     [?][*N ]number argument ...            one call a line
 *
 * `?` goes on where it fails, `*N` makes the call up to N times and stops at the first failure (the
 * result is how often it succeeded).  An argument is
 *
 *     -17          a number                  "x2f00        bytes, in hexadecimal, ended by a NUL
 *     $2           the result of line 2      z64           64 zero bytes, to be written to
 *     @2.1         the second int32 in the   r80.65536     a byte, so many times
 *                  last z of line 2          (a b c)       an array of words; may nest
 *     L            the plugin's lane
 *
 * So an attempt is a row of a table in tests/escape, and anything that a program can ask of the kernel
 * can be one.  The answer is "ok:<last result>:<hexadecimal>", of the last z that is not all zeros.
 */
#include "hostile.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#define MAX_LINES 64
#define ARENA (4 * 1024 * 1024)
#define SHOWN 256

static unsigned char arena[ARENA] __attribute__((aligned(16)));
static size_t arena_used;
static long results[MAX_LINES];
static unsigned char *outs[MAX_LINES];
static size_t out_sizes[MAX_LINES];

/* The descriptor that speaks to the host: the only sequenced socket there is. */
static int lane(void)
{
    for (int fd = 0; fd < 1024; fd++) {
        struct stat info;
        if (fstat(fd, &info) == 0 && S_ISSOCK(info.st_mode))
            return fd;
    }
    return -1;
}

static unsigned char *room(size_t size)
{
    size_t at = (arena_used + 15) & ~(size_t)15;
    if (size > ARENA - at)
        abort();
    arena_used = at + size;
    return arena + at;
}

static uintptr_t argument(const char **text, int line)
{
    const char *at = *text;
    char *end = NULL;
    uintptr_t word = 0;

    switch (*at) {
    case 'x': {
        size_t size = 0;
        for (at++; at[size * 2] && strchr("0123456789abcdef", at[size * 2]); size++)
            ;
        unsigned char *bytes = room(size + 1);
        for (size_t i = 0; i < size; i++) {
            char pair[3] = {at[2 * i], at[2 * i + 1], 0};
            bytes[i] = (unsigned char)strtoul(pair, NULL, 16);
        }
        bytes[size] = 0;
        word = (uintptr_t)bytes;
        end = (char *)at + 2 * size;
        break;
    }
    case 'z': {
        size_t size = strtoul(at + 1, &end, 10);
        outs[line] = memset(room(size + 1), 0, size + 1);
        out_sizes[line] = size;
        word = (uintptr_t)outs[line];
        break;
    }
    case 'r': {
        char pair[3] = {at[1], at[2], 0};
        size_t size = strtoul(at + 4, &end, 10);
        word = (uintptr_t)memset(room(size + 1), (int)strtoul(pair, NULL, 16), size);
        break;
    }
    case '$':
        word = (uintptr_t)results[strtoul(at + 1, &end, 10) % MAX_LINES];
        break;
    case '@': {
        size_t from = strtoul(at + 1, &end, 10) % MAX_LINES;
        size_t index = *end == '.' ? strtoul(end + 1, &end, 10) : 0;
        int32_t value = -1;
        if (outs[from])
            memcpy(&value, outs[from] + 4 * index, sizeof value);
        word = (uintptr_t)(long)value;
        break;
    }
    case 'L':
        word = (uintptr_t)lane();
        end = (char *)at + 1;
        break;
    case '(': {
        uintptr_t words[64];
        size_t count = 0;
        at++;
        while (*at && *at != ')' && count < 64) {
            words[count++] = argument(&at, line);
            while (*at == ' ')
                at++;
        }
        uintptr_t *array = (uintptr_t *)room(sizeof words);
        memcpy(array, words, count * sizeof *array);
        word = (uintptr_t)array;
        end = (char *)at + 1;
        break;
    }
    default:
        word = (uintptr_t)strtoll(at, &end, 0);
    }
    *text = end;
    return word;
}

/* A child that an attempt managed to make: it stays for a moment, to be found, and then ends. */
static void be_a_child(void)
{
    struct timespec moment = {3, 0};
    kernel(SYS_nanosleep, &moment, NULL);
    kernel(SYS_exit_group, 0);
}

static int makes_a_child(long number)
{
#ifdef SYS_fork
    if (number == SYS_fork)
        return 1;
#endif
    return number == SYS_clone || number == SYS_clone3;
}

static void show(long result, int line)
{
    char shown[2 * SHOWN + 1] = "";
    size_t size = 0;
    for (; line >= 0 && !size; line--) {
        size = outs[line] ? out_sizes[line] : 0;
        while (size && !outs[line][size - 1])
            size--;
        for (size_t i = 0; i < size && i < SHOWN; i++)
            sprintf(shown + 2 * i, "%02x", outs[line][i]);
    }
    say("ok:%ld:%s", result, shown);
}

/* Plays the text and answers. */
static void play(const char *text)
{
    int line = 0;
    long result = 0;

    arena_used = 0;
    memset(outs, 0, sizeof outs);
    while (*text && line < MAX_LINES) {
        uintptr_t words[7] = {0};
        int count = 0;
        int lenient = *text == '?';
        long times = 0;

        text += lenient;
        if (*text == '*') {
            times = strtol(text + 1, (char **)&text, 10);
            while (*text == ' ')
                text++;
        }
        while (*text && *text != '\n') {
            if (*text == ' ')
                text++;
            else if (count < 7)
                words[count++] = argument(&text, line);
            else
                abort();
        }
        text += *text == '\n';

        long done = 0;
        do {
            result = kernel((long)words[0], words[1], words[2], words[3], words[4], words[5], words[6]);
            if (result == 0 && makes_a_child((long)words[0]))
                be_a_child();
        } while (result != -1 && ++done < times);
        if (times && done)
            result = done;
        if (result == -1 && !lenient) {
            say_errno(line);
            return;
        }
        results[line++] = result;
    }
    show(result, line - 1);
}
