/*
 * hostile.c: a plugin that tries everything it shouldn't, for tests/escape.
 *
 * Each topic is a way to attack; the message says what with.  Most attempts are lists of kernel calls
 * (topic "calls", see hostile_calls.c); the other topics are what no such list can say.  One list can
 * be written into the file itself, in the place of EARLY-CALLS: a constructor plays it.
 */
#include "hostile.h"
#include "../../native-shim/include/capwasm_plugin.h"
#include "hostile_calls.c"

#include <dlfcn.h>
#include <pthread.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

static const capwasm_host *host;
static const char *message;
static size_t message_size;

/* ---- Before anybody called ------------------------------------------------------------------ */

/* Tests put a list of calls behind the colon. */
char early_calls[1024] = "EARLY-CALLS:";
static char early_answer[ANSWER_ROOM];

__attribute__((constructor)) static void early(void)
{
    const char *volatile text = early_calls + strlen("EARLY-CALLS:");
    if (*text) {
        play(text);
        memcpy(early_answer, answer, sizeof early_answer);
    }
}

static void constructor(void)
{
    say("%s", early_answer);
}

/* ---- What lies in memory --------------------------------------------------------------------- */

extern char **environ;

static void environment(void)
{
    size_t used = (size_t)snprintf(answer, sizeof answer, "ok:");
    for (char **entry = environ; entry && *entry && used < sizeof answer; entry++)
        used += (size_t)snprintf(answer + used, sizeof answer - used, "%s;", *entry);
}

static sigjmp_buf unreadable;

static void on_fault(int number)
{
    (void)number;
    siglongjmp(unreadable, 1);
}

#define PAGE ((uintptr_t)4096)
#define CHUNK (16 * PAGE)

static uintptr_t found;
static size_t pages_read;

/* Looks for the needle, of which only a disguised copy (each bit of 0xAA turned) may be in memory. */
static void search(volatile uintptr_t from, uintptr_t to)
{
    const unsigned char *hidden = (const unsigned char *)message;
    for (; from < to && !found; from += PAGE) {
        if (sigsetjmp(unreadable, 1))
            continue;
        const unsigned char *page = (const unsigned char *)from;
        const unsigned char *at = page;
        unsigned char first = hidden[0] ^ 0xAA;
        *(const volatile unsigned char *)page;
        pages_read++;
        while ((at = memchr(at, first, PAGE - (size_t)(at - page)))) {
            size_t same = 1;
            while (same < 16 && at[same] == (unsigned char)(hidden[same] ^ 0xAA))
                same++;
            if (same == 16) {
                found = (uintptr_t)at;
                return;
            }
            if (++at == page + PAGE)
                break;
        }
    }
}

/* Finds what is mapped without being told: a mapping that replaces none is refused where one is. */
static void walk(uintptr_t from, uintptr_t to)
{
    if (found || from >= to)
        return;
    void *got = mmap((void *)from, to - from, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    if (got != MAP_FAILED) {
        munmap(got, to - from);
        return;
    }
    if (errno != EEXIST)
        return;
    if (to - from <= CHUNK) {
        search(from, to);
        return;
    }
    uintptr_t middle = from + ((to - from) / 2 & ~(PAGE - 1));
    walk(from, middle);
    walk(middle, to);
}

/* The message begins with the 16 disguised bytes. */
static void scan(void)
{
    struct sigaction action = {0};
    action.sa_handler = on_fault;
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    found = 0;
    pages_read = 0;
    walk(16 * PAGE, ((uintptr_t)1 << 47) - PAGE);
    if (found)
        say("ok:found among %zu pages", pages_read);
    else
        say("none:%zu pages", pages_read);
}

/* Every descriptor there is, as number and kind. */
static void descriptors(void)
{
    size_t used = (size_t)snprintf(answer, sizeof answer, "ok:");
    for (int fd = 0; fd < 65536 && used < sizeof answer; fd++) {
        struct stat info;
        if (fstat(fd, &info) == 0)
            used += (size_t)snprintf(answer + used, sizeof answer - used, "%d=%o;", fd,
                                     info.st_mode & S_IFMT);
    }
}

/* Writes to the memory in which the host hands over a large message: first asks, then does. */
static void window(void)
{
    void *page = (void *)((uintptr_t)message & ~(PAGE - 1));
    if (mprotect(page, PAGE, PROT_READ | PROT_WRITE) == 0) {
        ((volatile char *)message)[0] = '!';
        say("ok:written");
        return;
    }
    say_errno(0);
}

/* ---- Many -------------------------------------------------------------------------------------- */

static long number(void)
{
    char text[32] = "";
    memcpy(text, message, message_size < 31 ? message_size : 31);
    return strtol(text, NULL, 10);
}

static void *rest(void *unused)
{
    struct timespec moment = {30, 0};
    kernel(SYS_nanosleep, &moment, NULL);
    return unused;
}

static void threads(void)
{
    long made = 0;
    int error = 0;
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 32 * 1024);
    for (; made < number() && !error; made += !error) {
        pthread_t thread;
        error = pthread_create(&thread, &small, rest, NULL);
    }
    say("ok:%ld:%s", made, error ? error_name(error) : "");
}

/* Takes that many mebibytes and writes to each page. */
static void memory(void)
{
    long taken = 0;
    for (; taken < number(); taken++) {
        char *piece = malloc(1 << 20);
        if (!piece)
            break;
        for (size_t at = 0; at < 1 << 20; at += PAGE)
            ((volatile char *)piece)[at] = 1;
    }
    say("ok:%ld", taken);
}

static void virtual_fork(void)
{
#ifdef SYS_vfork
    pid_t child = vfork();
    if (child == 0)
        _exit(7);
    if (child < 0)
        say_errno(0);
    else
        say("ok:%d", child);
#else
    errno = ENOSYS;
    say_errno(0);
#endif
}

/* Asks so many questions, each rightly numbered, and never reads an answer. */
static void flood(void)
{
    /* [ASK, seq, 0, [], []]: the first function of the table, without arguments. */
    unsigned char frame[] = {0x95, 9, 0xce, 0, 0, 0, 0, 0, 0x90, 0x90};
    struct timespec moment = {0, 1000 * 1000};
    int fd = lane();
    long sent = 0;
    for (long tries = 0; sent < number() && tries < 60000; tries++) {
        for (int byte = 0; byte < 4; byte++)
            frame[3 + byte] = (unsigned char)(sent >> (24 - 8 * byte));
        if (kernel(SYS_sendto, fd, frame, sizeof frame, 0, NULL, 0) == (long)sizeof frame)
            sent++;
        else
            kernel(SYS_nanosleep, &moment, NULL);
    }
    say("ok:%ld", sent);
}

/* ---- Other doors into the kernel ---------------------------------------------------------------- */

/* The 32-bit entry: other numbers, no filter that knows only one architecture. */
static void int80(void)
{
#ifdef __x86_64__
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number()), "b"(0), "c"(0), "d"(0) : "memory");
    if (result < 0) {
        errno = (int)-result;
        say_errno(0);
    } else
        say("ok:%ld", result);
#else
    errno = ENOSYS;
    say_errno(0);
#endif
}

/* Loads another library. */
static void library(void)
{
    char path[512] = "";
    memcpy(path, message, message_size < 511 ? message_size : 511);
    setenv("LD_LIBRARY_PATH", "/usr/lib:/lib:/tmp", 1);
    say(dlopen(path, RTLD_NOW) ? "ok:loaded" : "errno:ELIBACC@0");
}

static void calls(void)
{
    char *text = malloc(message_size + 1);
    memcpy(text, message, message_size);
    text[message_size] = 0;
    play(text);
    free(text);
}

/* ---- Not coming back ------------------------------------------------------------------------------ */

__attribute__((noinline)) static long deep(volatile long depth)
{
    volatile char frame[4096];
    frame[depth % 4096] = 1;
    return depth < 0 ? frame[0] : deep(depth + 1) + frame[0];
}

static void crash(void)
{
    switch (message_size ? message[0] : 0) {
    case 's':
        *(volatile char *)(uintptr_t)message_size = 1;
        break;
    case 'a':
        abort();
    case 'd':
        say("ok:%ld", deep(0));
        break;
    case 'e':
        _exit(3);
    case 'i':
        __builtin_trap();
    case 'k':
        kernel(SYS_kill, (long)getpid(), SIGKILL);
        break;
    case 't':
        kernel(SYS_exit, 0);
        break;
    }
}

/* Plays the calls, and runs into a fault. */
static void fault(void)
{
    calls();
    *(volatile char *)(uintptr_t)(message_size % 64) = 1;
}

/* Runs for ever, deaf to every signal that it may be deaf to. */
static void spin(void)
{
    for (int signal_number = 1; signal_number < 65; signal_number++)
        signal(signal_number, SIG_IGN);
    for (volatile long turn = 0;; turn++)
        ;
}

static void stop(void)
{
    kernel(SYS_kill, (long)getpid(), SIGSTOP);
    for (;;)
        rest(NULL);
}

/* ---- The host's functions, where they may not be called --------------------------------------------- */

static int elsewhere_status = 1;

static void *call_elsewhere(void *wait)
{
    uint64_t ns = 0;
    struct timespec moment = {0, 200 * 1000 * 1000};
    if (wait)
        kernel(SYS_nanosleep, &moment, NULL);
    elsewhere_status = host->clock->now(&ns);
    return NULL;
}

/* On another thread, while the call runs. */
static void elsewhere(void)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, call_elsewhere, NULL)) {
        say_errno(0);
        return;
    }
    pthread_join(thread, NULL);
    say("ok:%d", elsewhere_status);
}

/* On another thread, after the call has returned; "afterwards" tells what came of it. */
static void later(void)
{
    static int wait = 1;
    pthread_t thread;
    if (pthread_create(&thread, NULL, call_elsewhere, &wait))
        say_errno(0);
    else
        say("ok:0");
}

static void afterwards(void)
{
    say("ok:%d", elsewhere_status);
}

/* ---- The plugin ------------------------------------------------------------------------------------ */

static const struct {
    const char *name;
    void (*run)(void);
} attempts[] = {
    {"calls", calls},
    {"constructor", constructor},
    {"environment", environment},
    {"scan", scan},
    {"descriptors", descriptors},
    {"window", window},
    {"threads", threads},
    {"memory", memory},
    {"virtual-fork", virtual_fork},
    {"flood", flood},
    {"int80", int80},
    {"library", library},
    {"crash", crash},
    {"fault", fault},
    {"spin", spin},
    {"stop", stop},
    {"elsewhere", elsewhere},
    {"later", later},
    {"afterwards", afterwards},
};

const capwasm_description *capwasm_plugin_describe(uint32_t abi, const capwasm_host *given)
{
    static const capwasm_description description = {
        CAPWASM_ABI, sizeof description, {"Hostile", 7}, NULL, 0,
    };
    host = given;
    return abi == CAPWASM_ABI ? &description : NULL;
}

/* A result that is none. */
static int lie(char how, capwasm_result *result)
{
    static char page[1];
    switch (how) {
    case 'n': /* NULL with a size */
        result->data = NULL;
        result->size = 4096;
        return CAPWASM_CALL_OK;
    case 'w': /* a wild pointer */
        result->data = (void *)16;
        result->size = 4096;
        return CAPWASM_CALL_OK;
    case 'h': /* a huge one */
        result->data = page;
        result->size = SIZE_MAX / 2;
        return CAPWASM_CALL_OK;
    case 'u': /* an error that is no text */
        result->data = memset(malloc(4), 0xFF, 4);
        result->size = 4;
        return CAPWASM_CALL_ERROR;
    default: /* no such status */
        return 77;
    }
}

int capwasm_plugin_call(const char *topic, size_t topic_size, const uint8_t *bytes, size_t size,
                        capwasm_result *result)
{
    message = (const char *)bytes;
    message_size = size;
    if (topic_size == 3 && memcmp(topic, "lie", 3) == 0)
        return lie(size ? message[0] : 0, result);
    say("unknown");
    for (size_t i = 0; i < sizeof attempts / sizeof attempts[0]; i++)
        if (strlen(attempts[i].name) == topic_size && memcmp(topic, attempts[i].name, topic_size) == 0)
            attempts[i].run();
    result->size = strlen(answer);
    result->data = malloc(result->size);
    memcpy(result->data, answer, result->size);
    return CAPWASM_CALL_OK;
}

void capwasm_plugin_free(void *data, size_t size)
{
    (void)size;
    free(data);
}
