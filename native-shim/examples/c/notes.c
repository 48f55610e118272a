/*
 * notes.c: a native plugin that keeps notes.
 *
 *     add      the message is a note; answers with its number
 *     list     all notes, one a line
 *     export   writes them to the file that the setting `file` names; answers with its size in bytes
 *     send     posts them to the URL that the setting `url` names, with the secret `notes-token`
 *
 * It shows what most plugins need: outputs that are copied before the next function is called, handles
 * that are closed on every way out, errors that are told to the caller in words, and aborts, on which
 * it just returns.
 */
#include "capwasm_plugin.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const capwasm_host *host;

/* ---- A growing text ----------------------------------------------------------------------------- */

typedef struct buffer {
    char *data;
    size_t size;
    size_t room;
} buffer;

/* Returns 0 if there is no memory. */
static int append(buffer *b, const void *data, size_t size)
{
    if (b->room - b->size < size) {
        size_t room = b->room * 2 + size;
        char *larger = realloc(b->data, room);
        if (larger == NULL)
            return 0;
        b->data = larger;
        b->room = room;
    }
    if (size > 0)
        memcpy(b->data + b->size, data, size);
    b->size += size;
    return 1;
}

/* ---- Answers ------------------------------------------------------------------------------------ */

/* The plugin's own words for what went wrong; what the host says is a number. */
static int fail(capwasm_result *result, const char *what, capwasm_status status)
{
    char text[128];
    int size = snprintf(text, sizeof text, "%s (%" PRId32 ")", what, status);
    buffer b = {0};
    if (size > 0 && append(&b, text, (size_t)size < sizeof text ? (size_t)size : sizeof text - 1)) {
        result->data = b.data;
        result->size = b.size;
    }
    return CAPWASM_CALL_ERROR;
}

/* Hands the buffer over: from here on it is freed by capwasm_plugin_free. */
static int answer(capwasm_result *result, buffer *b)
{
    result->data = b->data;
    result->size = b->size;
    return CAPWASM_CALL_OK;
}

static int answer_number(capwasm_result *result, uint64_t number)
{
    char text[32];
    buffer b = {0};
    int size = snprintf(text, sizeof text, "%" PRIu64, number);
    if (size < 0 || !append(&b, text, (size_t)size))
        return fail(result, "no memory", 0);
    return answer(result, &b);
}

/* ---- Notes -------------------------------------------------------------------------------------- */

#define PREFIX "note/"
#define PREFIX_SIZE (sizeof PREFIX - 1)
#define PAGE 1000

/* Appends all notes to `out`, each with a line end.  A status of the store. */
static capwasm_status collect(buffer *out)
{
    char last[64];
    size_t last_size = 0;
    for (;;) {
        const capwasm_text *keys;
        size_t count;
        capwasm_status status = host->kv->keys(PREFIX, PREFIX_SIZE, last_size > 0 ? last : NULL,
                                               last_size, &keys, &count);
        if (status != CAPWASM_OK)
            return status;
        if (count == 0)
            return CAPWASM_OK;

        /* `keys` is gone with the next function of the host: so they are copied first. */
        char(*names)[sizeof last] = malloc(count * sizeof *names);
        size_t *sizes = malloc(count * sizeof *sizes);
        for (size_t i = 0; names != NULL && sizes != NULL && i < count; i++) {
            sizes[i] = keys[i].size < sizeof last ? keys[i].size : sizeof last;
            memcpy(names[i], keys[i].data, sizes[i]);
        }
        status = names == NULL || sizes == NULL ? CAPWASM_KV_ERROR_UNAVAILABLE : CAPWASM_OK;
        for (size_t i = 0; status == CAPWASM_OK && i < count; i++) {
            capwasm_bytes note;
            status = host->kv->get(names[i], sizes[i], &note);
            if (status == CAPWASM_OK && note.data != NULL &&
                !(append(out, note.data, note.size) && append(out, "\n", 1)))
                status = CAPWASM_KV_ERROR_UNAVAILABLE;
        }
        if (status == CAPWASM_OK) {
            last_size = sizes[count - 1];
            memcpy(last, names[count - 1], last_size);
        }
        free(names);
        free(sizes);
        if (status != CAPWASM_OK || count < PAGE)
            return status;
    }
}

static int add(const uint8_t *message, size_t size, capwasm_result *result)
{
    char key[32];
    int64_t number;
    capwasm_status status = host->kv->increment("count", 5, 1, &number);
    if (status != CAPWASM_OK)
        return fail(result, "the notes can't be counted", status);
    int key_size = snprintf(key, sizeof key, PREFIX "%012" PRId64, number);
    status = host->kv->set(key, (size_t)key_size, message, size, NULL);
    if (status != CAPWASM_OK)
        return fail(result, "the note can't be kept", status);
    capwasm_log_field field = {{"key", 3}, {key, (size_t)key_size}};
    host->log->write(CAPWASM_LOG_LEVEL_INFO, "a note was added", 16, &field, 1);
    return answer_number(result, (uint64_t)number);
}

static int list(capwasm_result *result)
{
    buffer notes = {0};
    capwasm_status status = collect(&notes);
    if (status == CAPWASM_OK)
        return answer(result, &notes);
    free(notes.data);
    return fail(result, "the notes can't be read", status);
}

/* A copy of a setting; its data is NULL if it is not there, or if there is no memory. */
static buffer setting(const char *key)
{
    capwasm_text value;
    buffer copy = {0};
    if (host->config->get(key, strlen(key), &value) == CAPWASM_OK && value.data != NULL)
        append(&copy, value.data, value.size);
    return copy;
}

/* Writes in parts: one write carries at most 1 MiB. */
static capwasm_status write_all(capwasm_handle file, const buffer *b)
{
    const size_t most = 1 << 20;
    capwasm_status status = CAPWASM_OK;
    for (size_t at = 0; status == CAPWASM_OK && at < b->size; at += most) {
        size_t size = b->size - at < most ? b->size - at : most;
        status = host->fs->write(file, at, (const uint8_t *)b->data + at, size);
    }
    return status == CAPWASM_OK ? host->fs->sync(file) : status;
}

static int export(capwasm_result *result)
{
    buffer notes = {0}, path = setting("file");
    capwasm_handle file = 0;
    capwasm_status status = path.data == NULL ? CAPWASM_FS_ERROR_NOT_FOUND : collect(&notes);
    if (status == CAPWASM_OK)
        status = host->fs->open(path.data, path.size, CAPWASM_FS_MODE_WRITE, &file);
    if (status == CAPWASM_OK) {
        status = write_all(file, &notes);
        host->fs->close(file);
    }
    uint64_t size = notes.size;
    free(path.data);
    free(notes.data);
    return status == CAPWASM_OK ? answer_number(result, size)
                                : fail(result, "the notes can't be exported", status);
}

static int send(capwasm_result *result)
{
    static const capwasm_fetch_header plain = {{"Content-Type", 12}, {"text/plain; charset=utf-8", 25}};
    buffer notes = {0}, url = setting("url");
    capwasm_handle token = 0, response = 0;
    uint16_t code = 0;
    capwasm_status status = url.data == NULL ? CAPWASM_FETCH_ERROR_INVALID : collect(&notes);

    /* The plugin never sees the token: it names it, and the host puts it into the request. */
    if (status == CAPWASM_OK)
        status = host->secrets->get("notes-token", 11, &token);
    if (status == CAPWASM_OK) {
        const uint32_t patience = 5000;
        capwasm_fetch_request request = {{"POST", 4}, {url.data, url.size}, &plain, 1,
                                         {(const uint8_t *)(notes.data ? notes.data : ""), notes.size},
                                         &patience, CAPWASM_FETCH_REDIRECTS_REFUSE};
        status = host->fetch->send(&request, &token, 1, &response);
        host->secrets->close(token);
    }
    if (status == CAPWASM_OK) {
        status = host->fetch->status(response, &code);
        host->fetch->close(response);
    }
    free(url.data);
    free(notes.data);
    return status == CAPWASM_OK ? answer_number(result, code)
                                : fail(result, "the notes can't be sent", status);
}

/* ---- The plugin --------------------------------------------------------------------------------- */

static const capwasm_text topics[] = {{"add", 3}, {"list", 4}, {"export", 6}, {"send", 4}};

const capwasm_description *capwasm_plugin_describe(uint32_t abi, const capwasm_host *given)
{
    static const capwasm_description description = {
        CAPWASM_ABI, sizeof description, {"notes", 5}, topics, sizeof topics / sizeof topics[0]};
    if (abi != CAPWASM_ABI)
        return NULL;
    host = given;
    return &description;
}

static int is(const char *topic, size_t size, const char *word)
{
    return size == strlen(word) && memcmp(topic, word, size) == 0;
}

int capwasm_plugin_call(const char *topic, size_t topic_size, const uint8_t *message, size_t message_size,
                        capwasm_result *result)
{
    if (is(topic, topic_size, "add"))
        return add(message, message_size, result);
    if (is(topic, topic_size, "list"))
        return list(result);
    if (is(topic, topic_size, "export"))
        return export(result);
    if (is(topic, topic_size, "send"))
        return send(result);
    return fail(result, "no such topic", 0);
}

void capwasm_plugin_free(void *data, size_t size)
{
    (void)size;
    free(data);
}
