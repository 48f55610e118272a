/*
 * A native plugin that tries what it is told: every function of every capability, and the rules of the
 * ABI.  The host's tests decide what it should have been able to do.
 *
 * It is the twin of tests/guests/rust/prober: a topic is an operation, the message is its arguments, each
 * a u32 (little-endian) with its length and so many bytes.  The answer is the same text, the error the
 * same word (`not-found`), as the component gives.  Operations that begin with `abi.` are only here.
 */
#include "capwasm_plugin.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_ARGUMENTS 16

static const capwasm_host *host;

/* ---- The call: its arguments and its answer ---------------------------------------------------- */

static capwasm_bytes arguments[MAX_ARGUMENTS];
static size_t argument_count;

static char *answer;
static size_t answer_size;
static size_t answer_room;
static int failed;

static void put(const void *data, size_t size)
{
    if (answer_room - answer_size < size) {
        answer_room = (answer_size + size) * 2;
        answer = realloc(answer, answer_room);
        if (answer == NULL)
            abort();
    }
    if (size > 0)
        memcpy(answer + answer_size, data, size);
    answer_size += size;
}

__attribute__((format(printf, 1, 2))) static void print(const char *format, ...)
{
    char line[512];
    va_list list;
    va_start(list, format);
    int size = vsnprintf(line, sizeof line, format, list);
    va_end(list);
    put(line, (size_t)size < sizeof line ? (size_t)size : sizeof line - 1);
}

static void put_text(capwasm_text text)
{
    put(text.data, text.size);
}

/* Between items: nothing before the first. */
static void next_line(void)
{
    if (answer_size > 0)
        put("\n", 1);
}

/* The answer becomes the error of that word. */
static void fail(const char *word)
{
    failed = 1;
    answer_size = 0;
    put(word, strlen(word));
}

static int parse(const uint8_t *message, size_t size)
{
    argument_count = 0;
    while (size >= 4 && argument_count < MAX_ARGUMENTS) {
        size_t length = message[0] | message[1] << 8 | message[2] << 16 | (size_t)message[3] << 24;
        if (length > size - 4)
            return 0;
        arguments[argument_count++] = (capwasm_bytes){message + 4, length};
        message += 4 + length;
        size -= 4 + length;
    }
    return size == 0;
}

static capwasm_bytes arg(size_t i)
{
    return i < argument_count ? arguments[i] : (capwasm_bytes){(const uint8_t *)"", 0};
}

static capwasm_text arg_text(size_t i)
{
    return (capwasm_text){(const char *)arg(i).data, arg(i).size};
}

static uint64_t num(size_t i)
{
    uint64_t value = 0;
    capwasm_bytes a = arg(i);
    for (size_t at = 0; at < a.size; at++) {
        if (a.data[at] < '0' || a.data[at] > '9')
            return 0;
        value = value * 10 + (a.data[at] - '0');
    }
    return value;
}

static int starts(capwasm_text text, const char *prefix)
{
    size_t size = strlen(prefix);
    return text.size >= size && memcmp(text.data, prefix, size) == 0;
}

/* Two parameters of a function of the host. */
#define TEXT(i) arg_text(i).data, arg_text(i).size
#define BYTES(i) arg(i).data, arg(i).size

/* ---- Errors: the words of wit/, by their numbers ------------------------------------------------ */

static const char *const fs_words[] = {"denied", "not-found", "exists", "not-directory", "is-directory",
                                       "not-empty", "invalid", "quota", "too-large", "closed",
                                       "unavailable", NULL};
static const char *const fetch_words[] = {"denied", "invalid", "too-large", "timeout", "closed",
                                          "unavailable", "insecure", NULL};
static const char *const secrets_words[] = {"denied", "closed", "unavailable", NULL};
static const char *const kv_words[] = {"denied", "invalid", "quota", "too-large", "closed",
                                       "unavailable", NULL};
static const char *const random_words[] = {"denied", "too-large", NULL};
static const char *const exec_words[] = {"denied", "invalid", "too-large", "timeout", "closed",
                                         "unavailable", NULL};
static const char *const no_words[] = {NULL};

/* Whether it went well; else the answer is the error's word. */
static int well(capwasm_status status, const char *const *words)
{
    switch (status) {
    case CAPWASM_OK:
        return 1;
    case CAPWASM_ABORTED:
        fail("aborted");
        return 0;
    case CAPWASM_BAD_ARGUMENT:
        fail("bad-argument");
        return 0;
    case CAPWASM_TOO_LARGE:
        fail("too-large");
        return 0;
    default:
        break;
    }
    for (int32_t i = 0; words[i] != NULL; i++) {
        if (i + 1 == status) {
            fail(words[i]);
            return 0;
        }
    }
    fail("no-such-status");
    return 0;
}

static const char *yes_no(uint8_t value)
{
    return value == 1 ? "true" : value == 0 ? "false" : "neither";
}

/* ---- fs ----------------------------------------------------------------------------------------- */

static const char *const accesses[] = {"Access::Read", "Access::ReadWrite"};
static const char *const kinds[] = {"Kind::File", "Kind::Directory", "Kind::Link", "Kind::Other"};

static int open_file(size_t i, int32_t mode, capwasm_handle *file)
{
    return well(host->fs->open(TEXT(i), mode, file), fs_words);
}

static void fs_mounts(void)
{
    const capwasm_fs_mount *mounts;
    size_t count;
    if (!well(host->fs->mounts(&mounts, &count), no_words))
        return;
    for (size_t i = 0; i < count; i++) {
        next_line();
        put_text(mounts[i].path);
        print(" %s ", accesses[mounts[i].access]);
        if (mounts[i].quota_bytes == NULL)
            print("None");
        else
            print("Some(%" PRIu64 ")", *mounts[i].quota_bytes);
        print(" %" PRIu64, mounts[i].used_bytes);
    }
}

static void read_all_of(capwasm_handle file)
{
    for (uint64_t at = 0;;) {
        capwasm_bytes part;
        if (!well(host->fs->read(file, at, 65536, &part), fs_words) || part.size == 0)
            return;
        put(part.data, part.size);
        at += part.size;
    }
}

static void fs_read(void)
{
    capwasm_handle file;
    if (!open_file(0, CAPWASM_FS_MODE_READ, &file))
        return;
    read_all_of(file);
    host->fs->close(file);
}

/* FILE OFFSET LENGTH */
static void fs_read_at(void)
{
    capwasm_handle file;
    capwasm_bytes part;
    if (!open_file(0, CAPWASM_FS_MODE_READ, &file))
        return;
    if (well(host->fs->read(file, num(1), (uint32_t)num(2), &part), fs_words))
        put(part.data, part.size);
    host->fs->close(file);
}

static void write_as(int32_t mode)
{
    capwasm_handle file;
    if (!open_file(0, mode, &file))
        return;
    well(host->fs->write(file, 0, BYTES(1)), fs_words);
    host->fs->close(file);
}

static void fs_write(void) { write_as(CAPWASM_FS_MODE_WRITE); }
static void fs_append(void) { write_as(CAPWASM_FS_MODE_APPEND); }
static void fs_update(void) { write_as(CAPWASM_FS_MODE_UPDATE); }
static void fs_create(void) { write_as(CAPWASM_FS_MODE_CREATE); }

static void fs_open(void)
{
    capwasm_handle file;
    if (open_file(0, CAPWASM_FS_MODE_READ, &file))
        host->fs->close(file);
}

/* Opens the file n times and keeps every handle until the end. */
static void fs_hold(void)
{
    uint64_t wanted = num(1), opened = 0;
    capwasm_handle *held = calloc(wanted + 1, sizeof *held);
    if (held == NULL)
        abort();
    while (opened < wanted && open_file(0, CAPWASM_FS_MODE_READ, &held[opened]))
        opened++;
    if (!failed)
        print("%" PRIu64, opened);
    for (uint64_t i = 0; i < opened; i++)
        host->fs->close(held[i]);
    free(held);
}

/* Reads, waits, reads again with the same handle: for revocation in between. */
static void fs_read_sleep_read(void)
{
    capwasm_handle file;
    capwasm_bytes part;
    if (!open_file(0, CAPWASM_FS_MODE_READ, &file) ||
        !well(host->fs->read(file, 0, 10, &part), fs_words))
        return;
    for (uint64_t i = 0; i < num(1); i++) {
        if (!well(host->clock->sleep(10000000), no_words) ||
            !well(host->fs->read(file, 0, 10, &part), fs_words))
            return;
    }
    print("read to the end");
}

static void fs_size(void)
{
    capwasm_handle file;
    uint64_t size;
    if (!open_file(0, CAPWASM_FS_MODE_READ, &file))
        return;
    if (well(host->fs->get_size(file, &size), fs_words))
        print("%" PRIu64, size);
    host->fs->close(file);
}

static void fs_set_size(void)
{
    capwasm_handle file;
    if (!open_file(0, CAPWASM_FS_MODE_UPDATE, &file))
        return;
    well(host->fs->set_size(file, num(1)), fs_words);
    host->fs->close(file);
}

static void fs_sync(void)
{
    capwasm_handle file;
    if (!open_file(0, CAPWASM_FS_MODE_READ, &file))
        return;
    well(host->fs->sync(file), fs_words);
    host->fs->close(file);
}

/* PATH, and AFTER if it is there. */
static void fs_list(void)
{
    const capwasm_fs_info *entries;
    size_t count;
    const char *after = argument_count > 1 ? arg_text(1).data : NULL;
    if (!well(host->fs->list(TEXT(0), after, arg(1).size, &entries, &count), fs_words))
        return;
    for (size_t i = 0; i < count; i++) {
        next_line();
        put_text(entries[i].name);
    }
}

static void fs_stat(void)
{
    capwasm_fs_info info;
    if (well(host->fs->stat(TEXT(0), &info), fs_words))
        print("%s %" PRIu64, kinds[info.kind], info.size);
}

static void fs_mkdir(void) { well(host->fs->make_directory(TEXT(0)), fs_words); }
static void fs_remove(void) { well(host->fs->remove(TEXT(0)), fs_words); }
static void fs_rename(void) { well(host->fs->rename(TEXT(0), TEXT(1)), fs_words); }

/* ---- fetch -------------------------------------------------------------------------------------- */

/* METHOD URL, then any of secret:NAME, body:TEXT and HEADER=VALUE.  The response stays open. */
static int send_request(size_t first, capwasm_handle *response)
{
    capwasm_handle held[MAX_ARGUMENTS];
    capwasm_fetch_header headers[MAX_ARGUMENTS];
    size_t held_count = 0, header_count = 0;
    capwasm_bytes body = {NULL, 0};
    int done = 0;
    for (size_t i = first + 2; i < argument_count; i++) {
        capwasm_text word = arg_text(i);
        const char *equals = memchr(word.data, '=', word.size);
        if (starts(word, "secret:")) {
            if (!well(host->secrets->get(word.data + 7, word.size - 7, &held[held_count]),
                      secrets_words))
                goto out;
            held_count++;
        } else if (starts(word, "body:")) {
            body = (capwasm_bytes){(const uint8_t *)word.data + 5, word.size - 5};
        } else if (equals != NULL) {
            size_t size = (size_t)(equals - word.data);
            headers[header_count++] =
                (capwasm_fetch_header){{word.data, size}, {equals + 1, word.size - size - 1}};
        }
    }
    capwasm_fetch_request request = {arg_text(first), arg_text(first + 1), headers, header_count, body,
                                     NULL, CAPWASM_FETCH_REDIRECTS_FOLLOW};
    done = well(host->fetch->send(&request, held, held_count, response), fetch_words);
out:
    for (size_t i = 0; i < held_count; i++)
        host->secrets->close(held[i]);
    return done;
}

static void fetch_at(size_t first)
{
    capwasm_handle response;
    capwasm_bytes body;
    uint16_t status;
    if (!send_request(first, &response))
        return;
    /* The body lasts until the next function is called: so the status comes first. */
    if (well(host->fetch->status(response, &status), no_words) &&
        well(host->fetch->read_all(response, 1 << 20, &body), fetch_words)) {
        answer_size = 0;
        print("%u ", (unsigned)status);
        put(body.data, body.size);
    }
    host->fetch->close(response);
}

static void fetch(void) { fetch_at(0); }

static void fetch_loop(void)
{
    for (uint64_t i = 0; i < num(0) && !failed; i++)
        fetch_at(1);
}

/* Reads the body in parts of 1,000 bytes. */
static void fetch_stream(void)
{
    capwasm_handle response;
    capwasm_bytes part;
    if (!send_request(0, &response))
        return;
    while (well(host->fetch->read(response, 1000, &part), fetch_words) && part.size > 0)
        put(part.data, part.size);
    host->fetch->close(response);
}

/* The URL that answered, then the headers. */
static void fetch_headers(void)
{
    capwasm_handle response;
    capwasm_text url;
    const capwasm_fetch_header *headers;
    size_t count;
    if (!send_request(0, &response))
        return;
    if (well(host->fetch->url(response, &url), no_words)) {
        put_text(url);
        if (well(host->fetch->headers(response, &headers, &count), no_words)) {
            for (size_t i = 0; i < count; i++) {
                next_line();
                put_text(headers[i].name);
                print("=");
                put_text(headers[i].value);
            }
        }
    }
    host->fetch->close(response);
}

/* ---- secrets ------------------------------------------------------------------------------------ */

static void secret_get(void)
{
    capwasm_handle secret;
    capwasm_text name;
    uint64_t lease;
    if (!well(host->secrets->get(TEXT(0), &secret), secrets_words))
        return;
    if (well(host->secrets->name(secret, &name), no_words)) {
        put_text(name);
        if (well(host->secrets->lease_ms(secret, &lease), no_words))
            print(" %" PRIu64, lease);
    }
    host->secrets->close(secret);
}

static void secret_reveal(void)
{
    capwasm_handle secret;
    capwasm_bytes value;
    if (!well(host->secrets->get(TEXT(0), &secret), secrets_words))
        return;
    if (well(host->secrets->reveal(secret, &value), secrets_words))
        put(value.data, value.size);
    host->secrets->close(secret);
}

/* ---- kv ----------------------------------------------------------------------------------------- */

static void kv_get(void)
{
    capwasm_bytes value;
    if (!well(host->kv->get(TEXT(0), &value), kv_words))
        return;
    if (value.data == NULL)
        print("(none)");
    else
        put(value.data, value.size);
}

/* KEY VALUE, and TTL-MS if it is there. */
static void kv_set(void)
{
    uint64_t ttl = num(2);
    well(host->kv->set(TEXT(0), BYTES(1), argument_count > 2 ? &ttl : NULL), kv_words);
}

/* KEY VALUE, and EXPECTED if it is there. */
static void kv_compare_and_set(void)
{
    uint8_t stored = 2;
    const uint8_t *expected = argument_count > 2 ? arg(2).data : NULL;
    if (well(host->kv->compare_and_set(TEXT(0), expected, arg(2).size, BYTES(1), &stored), kv_words))
        print("%s", yes_no(stored));
}

static void kv_increment(void)
{
    int64_t sum;
    if (well(host->kv->increment(TEXT(0), (int64_t)num(1), &sum), kv_words))
        print("%" PRId64, sum);
}

static void kv_delete(void)
{
    uint8_t removed = 2;
    if (well(host->kv->remove(TEXT(0), &removed), kv_words))
        print("%s", yes_no(removed));
}

/* PREFIX, and AFTER if it is there. */
static void kv_keys(void)
{
    const capwasm_text *keys;
    size_t count;
    const char *after = argument_count > 1 ? arg_text(1).data : NULL;
    if (!well(host->kv->keys(TEXT(0), after, arg(1).size, &keys, &count), kv_words))
        return;
    for (size_t i = 0; i < count; i++) {
        next_line();
        put_text(keys[i]);
    }
}

/* ---- log, clock, random, config, exec ----------------------------------------------------------- */

static void log_write(void)
{
    capwasm_text level = arg_text(0);
    capwasm_log_field field = {{"from", 4}, {"guest", 5}};
    int32_t number = starts(level, "debug")   ? CAPWASM_LOG_LEVEL_DEBUG
                     : starts(level, "warn")  ? CAPWASM_LOG_LEVEL_WARN
                     : starts(level, "error") ? CAPWASM_LOG_LEVEL_ERROR
                                              : CAPWASM_LOG_LEVEL_INFO;
    well(host->log->write(number, TEXT(1), &field, 1), no_words);
}

static void log_flood(void)
{
    char line[1000];
    memset(line, 'x', sizeof line);
    for (uint64_t i = 0; i < num(0) && !failed; i++)
        well(host->log->write(CAPWASM_LOG_LEVEL_INFO, line, sizeof line, NULL, 0), no_words);
}

static void clock_now(void)
{
    uint64_t ns;
    if (well(host->clock->now(&ns), no_words))
        print("%" PRIu64, ns);
}

static void clock_monotonic(void)
{
    uint64_t ns;
    if (well(host->clock->monotonic(&ns), no_words))
        print("%" PRIu64, ns);
}

static void clock_sleep(void) { well(host->clock->sleep(num(0)), no_words); }

static void clock_loop(void)
{
    uint64_t ns;
    for (uint64_t i = 0; i < num(0) && !failed; i++)
        well(host->clock->monotonic(&ns), no_words);
}

static void random_bytes(void)
{
    capwasm_bytes bytes;
    if (well(host->random->bytes((uint32_t)num(0), &bytes), random_words))
        print("%zu", bytes.size);
}

static void random_next(void)
{
    uint64_t value;
    if (well(host->random->next_u64(&value), no_words))
        print("%" PRIu64, value);
}

static void config_get(void)
{
    capwasm_text value;
    if (!well(host->config->get(TEXT(0), &value), no_words))
        return;
    if (value.data == NULL)
        print("(none)");
    else
        put_text(value);
}

static void config_all(void)
{
    const capwasm_config_setting *settings;
    size_t count;
    if (!well(host->config->all(&settings, &count), no_words))
        return;
    for (size_t i = 0; i < count; i++) {
        next_line();
        put_text(settings[i].key);
        print("=");
        put_text(settings[i].value);
    }
}

static int run_command(capwasm_text command, size_t first, capwasm_bytes input,
                       capwasm_exec_output *output)
{
    capwasm_text words[MAX_ARGUMENTS];
    size_t count = 0;
    for (size_t i = first; i < argument_count; i++)
        words[count++] = arg_text(i);
    return well(host->exec->run(command.data, command.size, words, count, input.data, input.size,
                                output),
                exec_words);
}

/* COMMAND INPUT ARGUMENT...: exit code, what was cut off, both outputs. */
static void exec(void)
{
    capwasm_exec_output output;
    if (!run_command(arg_text(0), 2, arg(1), &output))
        return;
    if (output.code == NULL)
        print("-");
    else
        print("%" PRId32, *output.code);
    print(" (%s, %s)\n", yes_no(output.stdout_truncated), yes_no(output.stderr_truncated));
    put(output.stdout_bytes.data, output.stdout_bytes.size);
    print("\n");
    put(output.stderr_bytes.data, output.stderr_bytes.size);
}

static void exec_loop(void)
{
    capwasm_exec_output output;
    for (uint64_t i = 0; i < num(0) && !failed; i++)
        run_command(arg_text(1), MAX_ARGUMENTS, (capwasm_bytes){NULL, 0}, &output);
}

static void exec_flood(void)
{
    capwasm_exec_output output;
    size_t size = num(0);
    uint8_t *input = malloc(size + 1);
    if (input == NULL)
        abort();
    memset(input, 'x', size);
    if (run_command(arg_text(1), MAX_ARGUMENTS, (capwasm_bytes){input, size}, &output))
        print("%zu %s", output.stdout_bytes.size, yes_no(output.stdout_truncated));
    free(input);
}

/* ---- The process -------------------------------------------------------------------------------- */

static void echo(void) { put(arg(0).data, arg(0).size); }

/* Keeps n mebibytes, all of them touched. */
static void alloc(void)
{
    uint64_t n = num(0);
    char **held = calloc(n + 1, sizeof *held);
    for (uint64_t i = 0; i < n; i++) {
        if (held == NULL || (held[i] = malloc(1 << 20)) == NULL)
            abort();
        memset(held[i], 1, 1 << 20);
    }
    print("%" PRIu64, n);
    for (uint64_t i = 0; i < n; i++)
        free(held[i]);
    free(held);
}

static void panic(void) { abort(); }
static void std_exit(void) { _exit((int)num(0)); }

static void spin(void)
{
    for (volatile int go = 1; go;)
        ;
}

/* What stays from one call to the next. */
static void count(void)
{
    static uint64_t calls;
    print("%" PRIu64, ++calls);
}

/* ---- The rules of the ABI ----------------------------------------------------------------------- */

static capwasm_status outside = 1234;  /* what capwasm_plugin_describe was told */
static capwasm_status earlier = 1234;  /* what the constructor was told: it has no host */
static capwasm_status freed = 1234;    /* what the last capwasm_plugin_free was told */
static capwasm_handle kept;

static capwasm_status now_status(void)
{
    uint64_t ns;
    return host->clock->now(&ns);
}

__attribute__((constructor)) static void construct(void)
{
    earlier = host == NULL ? 0 : -2;
}

static void *on_thread(void *out)
{
    *(capwasm_status *)out = now_status();
    return NULL;
}

/* What a second thread is told. */
static void abi_thread(void)
{
    pthread_t thread;
    capwasm_status told = 1234;
    int wrong = pthread_create(&thread, NULL, on_thread, &told);
    if (wrong != 0) {
        fail("no-thread");
        return;
    }
    pthread_join(thread, NULL);
    print("%d", told);
}

/* What was told outside of calls: the constructor, describe, free. */
static void abi_outside(void) { print("%d %d %d", earlier, outside, freed); }

/* Sizes of all that the host gives, and of what we believe. */
static void abi_sizes(void)
{
    print("%u %u %zu", host->abi, host->size, sizeof(capwasm_host));
#define TABLE(name) print(" %s %zu %zu", #name, host->name->size, sizeof(capwasm_##name))
    TABLE(fs);
    TABLE(fetch);
    TABLE(secrets);
    TABLE(kv);
    TABLE(log);
    TABLE(clock);
    TABLE(random);
    TABLE(config);
    TABLE(exec);
#undef TABLE
}

/* Honest mistakes, one after the other. */
static void abi_mistakes(void)
{
    capwasm_handle file = 0;
    capwasm_bytes bytes;
    uint64_t size;
    uint8_t flag;
    capwasm_fetch_request request = {{"GET", 3}, {"https://x/", 10}, NULL, 0, {NULL, 0}, NULL, 99};
    print("utf8 %d", host->fs->open("/data/\xff", 7, 0, &file));
    print(" surrogate %d", host->fs->open("/\xed\xa0\x80", 4, 0, &file));
    print(" null %d", host->fs->open(NULL, 3, 0, &file));
    print(" nowhere %d", host->fs->open("/data/x", 7, 0, NULL));
    print(" mode %d", host->fs->open("/data/x", 7, 5, &file));
    print(" negative %d", host->fs->open("/data/x", 7, -1, &file));
    print(" level %d", host->log->write(4, "x", 1, NULL, 0));
    print(" fields %d", host->log->write(0, "x", 1, NULL, 2));
    print(" request %d", host->fetch->send(NULL, NULL, 0, &file));
    print(" redirects %d", host->fetch->send(&request, NULL, 0, &file));
    print(" value %d", host->kv->set("k", 1, NULL, 5, NULL));
    print(" huge-key %d", host->kv->remove("k", SIZE_MAX, &flag));
    print(" huge-value %d", host->kv->set("k", 1, (const uint8_t *)"v", SIZE_MAX / 2, NULL));
    print(" fields-count %d", host->log->write(0, "x", 1, (const capwasm_log_field *)&bytes, SIZE_MAX));
    print(" handle %d", host->fs->get_size(77, &size));
    print(" handle-0 %d", host->fs->read(0, 0, 1, &bytes));
    print(" close %d", host->fs->close(77));
    print(" no-result %d", host->secrets->lease_ms(77, &size));
    request.redirects = 0;
    file = 77;
    print(" credential %d", host->fetch->send(&request, &file, 1, &file));
}

/* A handle that was closed, one of another kind, and one closed twice. */
static void abi_stale(void)
{
    capwasm_handle file, secret;
    uint64_t size;
    if (!open_file(0, CAPWASM_FS_MODE_READ, &file) ||
        !well(host->secrets->get(TEXT(1), &secret), secrets_words))
        return;
    print("%d", host->fs->get_size(file, &size));
    print(" other-kind %d %d", host->fs->get_size(secret, &size), host->fs->close(secret));
    print(" close %d", host->fs->close(file));
    print(" closed %d %d", host->fs->get_size(file, &size), host->fs->close(file));
}

/* Keeps a file open for `abi.kept`, in a later call. */
static void abi_keep(void) { open_file(0, CAPWASM_FS_MODE_READ, &kept); }

static void abi_kept(void) { read_all_of(kept); }

/* A value of n bytes to the store: as large as the plugin likes. */
static void abi_large(void)
{
    size_t size = num(0);
    uint8_t *value = malloc(size + 1);
    if (value == NULL)
        abort();
    memset(value, 'v', size);
    well(host->kv->set("large", 5, value, size, NULL), kv_words);
    free(value);
}

/* A result of n bytes. */
static void abi_result(void)
{
    size_t size = num(0);
    for (size_t i = 0; i < size; i++)
        put("r", 1);
}

/* Outputs stay until the next function: the value read first is passed to the second. */
static void abi_pass_on(void)
{
    capwasm_bytes value;
    if (well(host->kv->get(TEXT(0), &value), kv_words) && value.data != NULL)
        well(host->kv->set(TEXT(1), value.data, value.size, NULL), kv_words);
}

/* Reads a file through its descriptor, and says what writing to it gives. */
static void abi_descriptor(void)
{
    capwasm_handle file;
    char part[4096];
    ssize_t size;
    int fd = -1;
    if (!open_file(0, CAPWASM_FS_MODE_READ, &file) ||
        !well(host->fs->descriptor(file, &fd), fs_words))
        return;
    host->fs->close(file);
    print("write %s: ", write(fd, "x", 1) < 0 ? strerror(errno) : "done");
    while ((size = read(fd, part, sizeof part)) > 0)
        put(part, (size_t)size);
    close(fd);
}

/* How often n is told after an abort: the host ends the call, and each function says so. */
static void abi_after_abort(void)
{
    capwasm_status first = now_status(), second = now_status();
    if (first != CAPWASM_ABORTED || second != CAPWASM_ABORTED)
        abort();
}

static int odd_result;

/* capwasm_plugin_call returns that number. */
static void abi_returns(void) { odd_result = (int)num(0); }

/* A result with a size and no data. */
static int no_data;

static void abi_no_data(void)
{
    no_data = 1;
}

/* An error whose message is not UTF-8. */
static void abi_bad_message(void) { fail("caf\xe9"); }

/* ---- Operations --------------------------------------------------------------------------------- */

static const struct operation {
    const char *name;
    void (*run)(void);
} operations[] = {
    {"fs.mounts", fs_mounts},
    {"fs.read", fs_read},
    {"fs.read-at", fs_read_at},
    {"fs.write", fs_write},
    {"fs.append", fs_append},
    {"fs.update", fs_update},
    {"fs.create", fs_create},
    {"fs.open", fs_open},
    {"fs.hold", fs_hold},
    {"fs.read-sleep-read", fs_read_sleep_read},
    {"fs.size", fs_size},
    {"fs.set-size", fs_set_size},
    {"fs.sync", fs_sync},
    {"fs.list", fs_list},
    {"fs.stat", fs_stat},
    {"fs.mkdir", fs_mkdir},
    {"fs.remove", fs_remove},
    {"fs.rename", fs_rename},
    {"fetch", fetch},
    {"fetch.loop", fetch_loop},
    {"fetch.stream", fetch_stream},
    {"fetch.headers", fetch_headers},
    {"secret.get", secret_get},
    {"secret.reveal", secret_reveal},
    {"kv.get", kv_get},
    {"kv.set", kv_set},
    {"kv.compare-and-set", kv_compare_and_set},
    {"kv.increment", kv_increment},
    {"kv.delete", kv_delete},
    {"kv.keys", kv_keys},
    {"log", log_write},
    {"log.flood", log_flood},
    {"clock.now", clock_now},
    {"clock.monotonic", clock_monotonic},
    {"clock.sleep", clock_sleep},
    {"clock.loop", clock_loop},
    {"random", random_bytes},
    {"random.next", random_next},
    {"config", config_get},
    {"config.all", config_all},
    {"exec", exec},
    {"exec.loop", exec_loop},
    {"exec.flood", exec_flood},
    {"echo", echo},
    {"alloc", alloc},
    {"panic", panic},
    {"spin", spin},
    {"count", count},
    {"std.exit", std_exit},
    {"abi.thread", abi_thread},
    {"abi.outside", abi_outside},
    {"abi.sizes", abi_sizes},
    {"abi.mistakes", abi_mistakes},
    {"abi.stale", abi_stale},
    {"abi.keep", abi_keep},
    {"abi.kept", abi_kept},
    {"abi.large", abi_large},
    {"abi.result", abi_result},
    {"abi.pass-on", abi_pass_on},
    {"abi.descriptor", abi_descriptor},
    {"abi.after-abort", abi_after_abort},
    {"abi.returns", abi_returns},
    {"abi.no-data", abi_no_data},
    {"abi.bad-message", abi_bad_message},
};

#define OPERATIONS (sizeof operations / sizeof operations[0])

/* ---- The plugin --------------------------------------------------------------------------------- */

const capwasm_description *capwasm_plugin_describe(uint32_t abi, const capwasm_host *given)
{
    static capwasm_text topics[OPERATIONS];
    static capwasm_description description = {
        CAPWASM_ABI, sizeof description, {"prober", 6}, topics, OPERATIONS};
    if (abi != CAPWASM_ABI)
        return NULL;
    host = given;
    for (size_t i = 0; i < OPERATIONS; i++)
        topics[i] = (capwasm_text){operations[i].name, strlen(operations[i].name)};
    outside = now_status();
    return &description;
}

int capwasm_plugin_call(const char *topic, size_t topic_size, const uint8_t *message, size_t message_size,
                        capwasm_result *result)
{
    size_t i = 0;
    answer = NULL;
    answer_size = answer_room = 0;
    failed = odd_result = no_data = 0;
    if (!parse(message, message_size)) {
        fail("arguments");
    } else {
        while (i < OPERATIONS && (strlen(operations[i].name) != topic_size ||
                                  memcmp(operations[i].name, topic, topic_size) != 0))
            i++;
        if (i < OPERATIONS) {
            operations[i].run();
        } else {
            fail("no operation ");
            put(topic, topic_size);
        }
    }
    if (no_data) {
        result->size = 5;
        return CAPWASM_CALL_OK;
    }
    result->data = answer;
    result->size = answer_size;
    return odd_result != 0 ? odd_result : failed ? CAPWASM_CALL_ERROR : CAPWASM_CALL_OK;
}

void capwasm_plugin_free(void *data, size_t size)
{
    (void)size;
    freed = now_status();
    free(data);
}
