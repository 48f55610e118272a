/* capwasm.h over the generated bindings: errors become one enum, and each output one block of malloc. */

#include <capwasm.h>

#include <stdarg.h>
#include <stdio.h>

#include "bindings/cw.h"

/* ---- Errors ----------------------------------------------------------------------------------- */

static const char *const words[] = {
    "ok",     "denied",  "not-found", "exists",  "not-directory", "is-directory", "not-empty",
    "invalid", "quota", "too-large", "timeout", "closed",        "unavailable",  "insecure",
};

const char *capwasm_word(capwasm_error error) {
    return (size_t)error < sizeof words / sizeof *words ? words[error] : "unknown";
}

/* The cases of each enum of wit/, in their order there. */
static const uint8_t fs_errors[] = {
    [CW_FS_ERROR_DENIED] = CAPWASM_DENIED,
    [CW_FS_ERROR_NOT_FOUND] = CAPWASM_NOT_FOUND,
    [CW_FS_ERROR_EXISTS] = CAPWASM_EXISTS,
    [CW_FS_ERROR_NOT_DIRECTORY] = CAPWASM_NOT_DIRECTORY,
    [CW_FS_ERROR_IS_DIRECTORY] = CAPWASM_IS_DIRECTORY,
    [CW_FS_ERROR_NOT_EMPTY] = CAPWASM_NOT_EMPTY,
    [CW_FS_ERROR_INVALID] = CAPWASM_INVALID,
    [CW_FS_ERROR_QUOTA] = CAPWASM_QUOTA,
    [CW_FS_ERROR_TOO_LARGE] = CAPWASM_TOO_LARGE,
    [CW_FS_ERROR_CLOSED] = CAPWASM_CLOSED,
    [CW_FS_ERROR_UNAVAILABLE] = CAPWASM_UNAVAILABLE,
};
static const uint8_t fetch_errors[] = {
    [CW_FETCH_ERROR_DENIED] = CAPWASM_DENIED,
    [CW_FETCH_ERROR_INVALID] = CAPWASM_INVALID,
    [CW_FETCH_ERROR_TOO_LARGE] = CAPWASM_TOO_LARGE,
    [CW_FETCH_ERROR_TIMEOUT] = CAPWASM_TIMEOUT,
    [CW_FETCH_ERROR_CLOSED] = CAPWASM_CLOSED,
    [CW_FETCH_ERROR_UNAVAILABLE] = CAPWASM_UNAVAILABLE,
    [CW_FETCH_ERROR_INSECURE] = CAPWASM_INSECURE,
};
static const uint8_t secrets_errors[] = {
    [CW_SECRETS_ERROR_DENIED] = CAPWASM_DENIED,
    [CW_SECRETS_ERROR_CLOSED] = CAPWASM_CLOSED,
    [CW_SECRETS_ERROR_UNAVAILABLE] = CAPWASM_UNAVAILABLE,
};
static const uint8_t kv_errors[] = {
    [CW_KV_ERROR_DENIED] = CAPWASM_DENIED,
    [CW_KV_ERROR_INVALID] = CAPWASM_INVALID,
    [CW_KV_ERROR_QUOTA] = CAPWASM_QUOTA,
    [CW_KV_ERROR_TOO_LARGE] = CAPWASM_TOO_LARGE,
    [CW_KV_ERROR_CLOSED] = CAPWASM_CLOSED,
    [CW_KV_ERROR_UNAVAILABLE] = CAPWASM_UNAVAILABLE,
};
static const uint8_t random_errors[] = {
    [CW_RANDOM_ERROR_DENIED] = CAPWASM_DENIED,
    [CW_RANDOM_ERROR_TOO_LARGE] = CAPWASM_TOO_LARGE,
};
static const uint8_t exec_errors[] = {
    [CW_EXEC_ERROR_DENIED] = CAPWASM_DENIED,
    [CW_EXEC_ERROR_INVALID] = CAPWASM_INVALID,
    [CW_EXEC_ERROR_TOO_LARGE] = CAPWASM_TOO_LARGE,
    [CW_EXEC_ERROR_TIMEOUT] = CAPWASM_TIMEOUT,
    [CW_EXEC_ERROR_CLOSED] = CAPWASM_CLOSED,
    [CW_EXEC_ERROR_UNAVAILABLE] = CAPWASM_UNAVAILABLE,
};

/* The bindings check a case's number already; what isn't there is none of ours. */
#define ERROR(table, number) \
    ((number) < sizeof table ? (capwasm_error)table[number] : CAPWASM_UNAVAILABLE)

/* ---- Memory ----------------------------------------------------------------------------------- */

/* The host knows by this name why the call ended (limits.memory). */
__attribute__((__noinline__, __noreturn__)) static void capwasm_out_of_memory(void) {
    __builtin_trap();
}

void *capwasm_resize(void *block, size_t size) {
    void *resized = realloc(block, size ? size : 1);
    if (resized == NULL)
        capwasm_out_of_memory();
    return resized;
}

void *capwasm_alloc(size_t size) {
    return capwasm_resize(NULL, size);
}

/* What comes from the host is put here.  The bindings have the same, weak, which tells of no reason. */
__attribute__((__export_name__("cabi_realloc"))) void *cabi_realloc(void *block, size_t old_size,
                                                                    size_t align, size_t size) {
    (void)old_size;
    return size ? capwasm_resize(block, size) : (void *)align;
}

/* A block of the bindings, with room for a NUL behind it; where it is empty they give none. */
static void *ended(uint8_t *ptr, size_t size) {
    char *block = capwasm_resize(size ? ptr : NULL, size + 1);
    block[size] = 0;
    return block;
}

static capwasm_text text_out(cw_string_t from) {
    return capwasm_text_from(ended(from.ptr, from.len), from.len);
}

static capwasm_bytes bytes_out(cw_list_u8_t from) {
    return capwasm_bytes_from(ended(from.ptr, from.len), from.len);
}

/* The bindings take pointers that may be written, and do not write. */
static cw_string_t text_in(capwasm_text text) {
    return (cw_string_t){(uint8_t *)(uintptr_t)text.data, text.size};
}

static cw_list_u8_t bytes_in(capwasm_bytes bytes) {
    return (cw_list_u8_t){(uint8_t *)(uintptr_t)bytes.data, bytes.size};
}

/* A list and its texts in one block: the records first, what they point to behind them. */
typedef struct pack {
    char *block;
    char *at;
} pack;

static pack pack_new(size_t records, size_t texts) {
    char *block = capwasm_alloc(records + texts + 1);
    return (pack){block, block + records};
}

static const void *pack_add(pack *to, const void *from, size_t size) {
    char *at = to->at;
    if (size)
        memcpy(at, from, size);
    at[size] = 0;
    to->at += size + 1;
    return at;
}

static capwasm_text pack_text(pack *to, cw_string_t text) {
    return capwasm_text_from(pack_add(to, text.ptr, text.len), text.len);
}

static capwasm_bytes pack_bytes(pack *to, cw_list_u8_t bytes) {
    return capwasm_bytes_from(pack_add(to, bytes.ptr, bytes.len), bytes.len);
}

capwasm_text capwasm_copy(capwasm_text text) {
    pack to = pack_new(0, text.size);
    return capwasm_text_from(pack_add(&to, text.data, text.size), text.size);
}

static capwasm_text format(const char *how, va_list arguments) {
    va_list again;
    va_copy(again, arguments);
    int size = vsnprintf(NULL, 0, how, again);
    va_end(again);
    if (size < 0)
        return capwasm_copy(capwasm_text_of(how));
    char *block = capwasm_alloc((size_t)size + 1);
    vsnprintf(block, (size_t)size + 1, how, arguments);
    return capwasm_text_from(block, (size_t)size);
}

capwasm_text capwasm_format(const char *how, ...) {
    va_list arguments;
    va_start(arguments, how);
    capwasm_text text = format(how, arguments);
    va_end(arguments);
    return text;
}

void capwasm_give(uint8_t **ptr, size_t *len, const void *block, size_t size) {
    /* The bindings free nothing where the size is 0. */
    if (size == 0)
        capwasm_free(block);
    *ptr = size ? (uint8_t *)(uintptr_t)block : NULL;
    *len = size;
}

/* ---- fs --------------------------------------------------------------------------------------- */

#define DONE(table, call)                    \
    do {                                     \
        uint8_t fault;                       \
        if (!(call))                         \
            return ERROR(table, fault);      \
        return CAPWASM_OK;                   \
    } while (0)

static cw_fs_borrow_file_t file_of(capwasm_file file) {
    return cw_fs_borrow_file((cw_fs_own_file_t){file.handle});
}

static capwasm_fs_info info_out(pack *to, const cw_fs_info_t *from) {
    return (capwasm_fs_info){
        .name = pack_text(to, from->name),
        .kind = (capwasm_fs_kind)from->kind,
        .size = from->size,
        .modified_ns = from->modified_ns,
    };
}

void capwasm_fs_mounts(capwasm_fs_mount **mounts, size_t *count) {
    cw_fs_list_mount_t found;
    cw_fs_mounts(&found);
    size_t texts = 0;
    for (size_t i = 0; i < found.len; i++)
        texts += found.ptr[i].path.len + 1;
    pack to = pack_new(found.len * sizeof **mounts, texts);
    capwasm_fs_mount *out = (capwasm_fs_mount *)(void *)to.block;
    for (size_t i = 0; i < found.len; i++) {
        const cw_fs_mount_t *from = &found.ptr[i];
        out[i] = (capwasm_fs_mount){
            .path = pack_text(&to, from->path),
            .access = (capwasm_fs_access)from->access,
            .has_quota = from->quota_bytes.is_some,
            .quota_bytes = from->quota_bytes.is_some ? from->quota_bytes.val : 0,
            .used_bytes = from->used_bytes,
        };
    }
    *mounts = out;
    *count = found.len;
    cw_fs_list_mount_free(&found);
}

capwasm_error capwasm_fs_open(capwasm_text path, capwasm_fs_mode mode, capwasm_file *file) {
    cw_string_t name = text_in(path);
    cw_fs_own_file_t opened;
    uint8_t fault;
    if (!cw_fs_open(&name, (cw_fs_mode_t)mode, &opened, &fault))
        return ERROR(fs_errors, fault);
    file->handle = opened.__handle;
    return CAPWASM_OK;
}

capwasm_error capwasm_fs_read(capwasm_file file, uint64_t offset, uint32_t length, capwasm_bytes *bytes) {
    cw_list_u8_t found;
    uint8_t fault;
    if (!cw_fs_method_file_read(file_of(file), offset, length, &found, &fault))
        return ERROR(fs_errors, fault);
    *bytes = bytes_out(found);
    return CAPWASM_OK;
}

capwasm_error capwasm_fs_write(capwasm_file file, uint64_t offset, capwasm_bytes bytes) {
    cw_list_u8_t given = bytes_in(bytes);
    DONE(fs_errors, cw_fs_method_file_write(file_of(file), offset, &given, &fault));
}

capwasm_error capwasm_fs_size(capwasm_file file, uint64_t *size) {
    DONE(fs_errors, cw_fs_method_file_size(file_of(file), size, &fault));
}

capwasm_error capwasm_fs_set_size(capwasm_file file, uint64_t size) {
    DONE(fs_errors, cw_fs_method_file_set_size(file_of(file), size, &fault));
}

capwasm_error capwasm_fs_sync(capwasm_file file) {
    DONE(fs_errors, cw_fs_method_file_sync(file_of(file), &fault));
}

void capwasm_fs_close(capwasm_file file) {
    cw_fs_file_drop_own((cw_fs_own_file_t){file.handle});
}

#define PIECE (1u << 20)

capwasm_error capwasm_fs_read_all(capwasm_text path, capwasm_bytes *bytes) {
    capwasm_file file;
    capwasm_error error = capwasm_fs_open(path, CAPWASM_FS_READ, &file);
    if (error)
        return error;
    char *all = capwasm_alloc(1);
    size_t size = 0;
    for (;;) {
        capwasm_bytes piece;
        error = capwasm_fs_read(file, size, PIECE, &piece);
        if (error)
            break;
        all = capwasm_resize(all, size + piece.size + 1);
        memcpy(all + size, piece.data, piece.size);
        size += piece.size;
        capwasm_free(piece.data);
        if (piece.size == 0)
            break;
    }
    capwasm_fs_close(file);
    if (error) {
        free(all);
        return error;
    }
    all[size] = 0;
    *bytes = capwasm_bytes_from(all, size);
    return CAPWASM_OK;
}

capwasm_error capwasm_fs_write_all(capwasm_text path, capwasm_bytes bytes) {
    capwasm_file file;
    capwasm_error error = capwasm_fs_open(path, CAPWASM_FS_WRITE, &file);
    if (error)
        return error;
    for (size_t at = 0; at < bytes.size && !error; at += PIECE) {
        size_t size = bytes.size - at < PIECE ? bytes.size - at : PIECE;
        error = capwasm_fs_write(file, at, capwasm_bytes_from(bytes.data + at, size));
    }
    capwasm_fs_close(file);
    return error;
}

capwasm_error capwasm_fs_stat(capwasm_text path, capwasm_fs_info **info) {
    cw_string_t name = text_in(path);
    cw_fs_info_t found;
    uint8_t fault;
    if (!cw_fs_stat(&name, &found, &fault))
        return ERROR(fs_errors, fault);
    pack to = pack_new(sizeof **info, found.name.len);
    *info = (capwasm_fs_info *)(void *)to.block;
    **info = info_out(&to, &found);
    cw_fs_info_free(&found);
    return CAPWASM_OK;
}

capwasm_error capwasm_fs_list(capwasm_text path, const capwasm_text *after, capwasm_fs_info **entries,
                              size_t *count) {
    cw_string_t name = text_in(path), last = after ? text_in(*after) : (cw_string_t){0};
    cw_fs_list_info_t found;
    uint8_t fault;
    if (!cw_fs_list(&name, after ? &last : NULL, &found, &fault))
        return ERROR(fs_errors, fault);
    size_t texts = 0;
    for (size_t i = 0; i < found.len; i++)
        texts += found.ptr[i].name.len + 1;
    pack to = pack_new(found.len * sizeof **entries, texts);
    *entries = (capwasm_fs_info *)(void *)to.block;
    *count = found.len;
    for (size_t i = 0; i < found.len; i++)
        (*entries)[i] = info_out(&to, &found.ptr[i]);
    cw_fs_list_info_free(&found);
    return CAPWASM_OK;
}

capwasm_error capwasm_fs_make_directory(capwasm_text path) {
    cw_string_t name = text_in(path);
    DONE(fs_errors, cw_fs_make_directory(&name, &fault));
}

capwasm_error capwasm_fs_remove(capwasm_text path) {
    cw_string_t name = text_in(path);
    DONE(fs_errors, cw_fs_remove(&name, &fault));
}

capwasm_error capwasm_fs_rename(capwasm_text from, capwasm_text to) {
    cw_string_t old = text_in(from), new = text_in(to);
    DONE(fs_errors, cw_fs_rename(&old, &new, &fault));
}

/* ---- secrets ---------------------------------------------------------------------------------- */

static cw_secrets_borrow_secret_t secret_of(capwasm_secret secret) {
    return cw_secrets_borrow_secret((cw_secrets_own_secret_t){secret.handle});
}

capwasm_error capwasm_secrets_get(capwasm_text name, capwasm_secret *secret) {
    cw_string_t given = text_in(name);
    cw_secrets_own_secret_t found;
    uint8_t fault;
    if (!cw_secrets_get(&given, &found, &fault))
        return ERROR(secrets_errors, fault);
    secret->handle = found.__handle;
    return CAPWASM_OK;
}

void capwasm_secrets_name(capwasm_secret secret, capwasm_text *name) {
    cw_string_t found;
    cw_secrets_method_secret_name(secret_of(secret), &found);
    *name = text_out(found);
}

uint64_t capwasm_secrets_lease_ms(capwasm_secret secret) {
    return cw_secrets_method_secret_lease_ms(secret_of(secret));
}

capwasm_error capwasm_secrets_reveal(capwasm_secret secret, capwasm_bytes *value) {
    cw_list_u8_t found;
    uint8_t fault;
    if (!cw_reveal_reveal(secret_of(secret), &found, &fault))
        return ERROR(secrets_errors, fault);
    *value = bytes_out(found);
    return CAPWASM_OK;
}

void capwasm_secrets_close(capwasm_secret secret) {
    cw_secrets_secret_drop_own((cw_secrets_own_secret_t){secret.handle});
}

/* ---- fetch ------------------------------------------------------------------------------------ */

static cw_fetch_borrow_response_t response_of(capwasm_response response) {
    return cw_fetch_borrow_response((cw_fetch_own_response_t){response.handle});
}

capwasm_error capwasm_fetch_send(const capwasm_fetch_request *request, capwasm_response *response) {
    size_t headers = request->header_count, secrets = request->credential_count;
    pack to = pack_new(headers * sizeof(cw_fetch_header_t) + secrets * sizeof(cw_fetch_borrow_secret_t), 0);
    cw_fetch_header_t *header = (cw_fetch_header_t *)(void *)to.block;
    cw_fetch_borrow_secret_t *secret = (cw_fetch_borrow_secret_t *)(void *)(header + headers);
    for (size_t i = 0; i < headers; i++) {
        header[i].name = text_in(request->headers[i].name);
        header[i].value = text_in(request->headers[i].value);
    }
    for (size_t i = 0; i < secrets; i++)
        secret[i] = secret_of(request->credentials[i]);
    bool method = request->method.size > 0;
    cw_fetch_request_t given = {
        .method = text_in(method ? request->method : CAPWASM_TEXT("GET")),
        .url = text_in(request->url),
        .headers = {header, headers},
        .body = {.is_some = request->body.data != NULL, .val = bytes_in(request->body)},
        .timeout_ms = {.is_some = request->timeout_ms != 0, .val = request->timeout_ms},
        .redirects = (cw_fetch_redirects_t)request->redirects,
    };
    cw_fetch_list_borrow_secret_t credentials = {secret, secrets};
    cw_fetch_own_response_t got;
    uint8_t fault = 0;
    bool sent = cw_fetch_send(&given, &credentials, &got, &fault);
    free(to.block);
    if (!sent)
        return ERROR(fetch_errors, fault);
    response->handle = got.__handle;
    return CAPWASM_OK;
}

capwasm_error capwasm_fetch_get(capwasm_text url, capwasm_response *response) {
    capwasm_fetch_request request = {.url = url};
    return capwasm_fetch_send(&request, response);
}

uint16_t capwasm_fetch_status(capwasm_response response) {
    return cw_fetch_method_response_status(response_of(response));
}

void capwasm_fetch_headers(capwasm_response response, capwasm_fetch_header **headers, size_t *count) {
    cw_fetch_list_header_t found;
    cw_fetch_method_response_headers(response_of(response), &found);
    size_t texts = 0;
    for (size_t i = 0; i < found.len; i++)
        texts += found.ptr[i].name.len + found.ptr[i].value.len + 2;
    pack to = pack_new(found.len * sizeof **headers, texts);
    *headers = (capwasm_fetch_header *)(void *)to.block;
    *count = found.len;
    for (size_t i = 0; i < found.len; i++) {
        (*headers)[i].name = pack_text(&to, found.ptr[i].name);
        (*headers)[i].value = pack_text(&to, found.ptr[i].value);
    }
    cw_fetch_list_header_free(&found);
}

static int lower(char c) {
    return c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c;
}

static bool same_name(cw_string_t one, capwasm_text other) {
    size_t at = 0;
    while (at < one.len && at < other.size && lower((char)one.ptr[at]) == lower(other.data[at]))
        at++;
    return at == one.len && at == other.size;
}

void capwasm_fetch_header_of(capwasm_response response, capwasm_text name, capwasm_text *value) {
    cw_fetch_list_header_t found;
    cw_fetch_method_response_headers(response_of(response), &found);
    *value = capwasm_text_from(NULL, 0);
    for (size_t i = 0; i < found.len && value->data == NULL; i++)
        if (same_name(found.ptr[i].name, name))
            *value = capwasm_copy(CAPWASM_TEXT_IN(found.ptr[i].value));
    cw_fetch_list_header_free(&found);
}

void capwasm_fetch_url(capwasm_response response, capwasm_text *url) {
    cw_string_t found;
    cw_fetch_method_response_url(response_of(response), &found);
    *url = text_out(found);
}

capwasm_error capwasm_fetch_read(capwasm_response response, uint32_t length, capwasm_bytes *bytes) {
    cw_list_u8_t found;
    uint8_t fault;
    if (!cw_fetch_method_response_read(response_of(response), length, &found, &fault))
        return ERROR(fetch_errors, fault);
    *bytes = bytes_out(found);
    return CAPWASM_OK;
}

capwasm_error capwasm_fetch_read_all(capwasm_response response, uint32_t limit, capwasm_bytes *bytes) {
    cw_list_u8_t found;
    uint8_t fault;
    if (!cw_fetch_method_response_read_all(response_of(response), limit, &found, &fault))
        return ERROR(fetch_errors, fault);
    *bytes = bytes_out(found);
    return CAPWASM_OK;
}

void capwasm_fetch_close(capwasm_response response) {
    cw_fetch_response_drop_own((cw_fetch_own_response_t){response.handle});
}

/* ---- kv --------------------------------------------------------------------------------------- */

capwasm_error capwasm_kv_get(capwasm_text key, capwasm_bytes *value) {
    cw_string_t name = text_in(key);
    cw_option_list_u8_t found;
    uint8_t fault;
    if (!cw_kv_get(&name, &found, &fault))
        return ERROR(kv_errors, fault);
    *value = found.is_some ? bytes_out(found.val) : capwasm_bytes_from(NULL, 0);
    return CAPWASM_OK;
}

capwasm_error capwasm_kv_set(capwasm_text key, capwasm_bytes value, uint64_t ttl_ms) {
    cw_string_t name = text_in(key);
    cw_list_u8_t given = bytes_in(value);
    DONE(kv_errors, cw_kv_set(&name, &given, ttl_ms ? &ttl_ms : NULL, &fault));
}

capwasm_error capwasm_kv_compare_and_set(capwasm_text key, const capwasm_bytes *expected,
                                         capwasm_bytes value, bool *stored) {
    cw_string_t name = text_in(key);
    cw_list_u8_t old = expected ? bytes_in(*expected) : (cw_list_u8_t){0}, new = bytes_in(value);
    DONE(kv_errors, cw_kv_compare_and_set(&name, expected ? &old : NULL, &new, stored, &fault));
}

capwasm_error capwasm_kv_increment(capwasm_text key, int64_t delta, int64_t *sum) {
    cw_string_t name = text_in(key);
    DONE(kv_errors, cw_kv_increment(&name, delta, sum, &fault));
}

capwasm_error capwasm_kv_delete(capwasm_text key, bool *removed) {
    cw_string_t name = text_in(key);
    DONE(kv_errors, cw_kv_delete(&name, removed, &fault));
}

capwasm_error capwasm_kv_keys(capwasm_text prefix, const capwasm_text *after, capwasm_text **keys,
                              size_t *count) {
    cw_string_t begin = text_in(prefix), last = after ? text_in(*after) : (cw_string_t){0};
    cw_list_string_t found;
    uint8_t fault;
    if (!cw_kv_keys(&begin, after ? &last : NULL, &found, &fault))
        return ERROR(kv_errors, fault);
    size_t texts = 0;
    for (size_t i = 0; i < found.len; i++)
        texts += found.ptr[i].len + 1;
    pack to = pack_new(found.len * sizeof **keys, texts);
    *keys = (capwasm_text *)(void *)to.block;
    *count = found.len;
    for (size_t i = 0; i < found.len; i++)
        (*keys)[i] = pack_text(&to, found.ptr[i]);
    cw_list_string_free(&found);
    return CAPWASM_OK;
}

/* ---- log, clock, random ----------------------------------------------------------------------- */

void capwasm_log(capwasm_log_level level, capwasm_text message, const capwasm_log_field *fields,
                 size_t field_count) {
    pack to = pack_new(field_count * sizeof(cw_log_field_t), 0);
    cw_log_field_t *field = (cw_log_field_t *)(void *)to.block;
    for (size_t i = 0; i < field_count; i++) {
        field[i].key = text_in(fields[i].key);
        field[i].value = text_in(fields[i].value);
    }
    cw_string_t given = text_in(message);
    cw_log_list_field_t list = {field, field_count};
    cw_log_write((cw_log_level_t)level, &given, &list);
    free(to.block);
}

void capwasm_logf(capwasm_log_level level, const char *how, ...) {
    va_list arguments;
    va_start(arguments, how);
    capwasm_text message = format(how, arguments);
    va_end(arguments);
    capwasm_log(level, message, NULL, 0);
    capwasm_free(message.data);
}

uint64_t capwasm_clock_now(void) {
    return cw_clock_now();
}

uint64_t capwasm_clock_monotonic(void) {
    return cw_clock_monotonic();
}

void capwasm_clock_sleep(uint64_t ns) {
    cw_clock_sleep(ns);
}

capwasm_error capwasm_random_bytes(uint32_t length, capwasm_bytes *bytes) {
    cw_list_u8_t found;
    uint8_t fault;
    if (!cw_random_bytes(length, &found, &fault))
        return ERROR(random_errors, fault);
    *bytes = bytes_out(found);
    return CAPWASM_OK;
}

capwasm_error capwasm_random_fill(void *buffer, size_t size) {
    for (size_t at = 0; at < size;) {
        capwasm_bytes piece;
        uint32_t length = size - at < 65536 ? (uint32_t)(size - at) : 65536;
        capwasm_error error = capwasm_random_bytes(length, &piece);
        if (error)
            return error;
        memcpy((char *)buffer + at, piece.data, length);
        capwasm_free(piece.data);
        at += length;
    }
    return CAPWASM_OK;
}

uint64_t capwasm_random_u64(void) {
    return cw_random_next_u64();
}

/* ---- config, exec ----------------------------------------------------------------------------- */

void capwasm_config_get(capwasm_text key, capwasm_text *value) {
    cw_string_t name = text_in(key), found;
    *value = cw_config_get(&name, &found) ? text_out(found) : capwasm_text_from(NULL, 0);
}

void capwasm_config_all(capwasm_config_setting **settings, size_t *count) {
    cw_list_tuple2_string_string_t found;
    cw_config_all(&found);
    size_t texts = 0;
    for (size_t i = 0; i < found.len; i++)
        texts += found.ptr[i].f0.len + found.ptr[i].f1.len + 2;
    pack to = pack_new(found.len * sizeof **settings, texts);
    *settings = (capwasm_config_setting *)(void *)to.block;
    *count = found.len;
    for (size_t i = 0; i < found.len; i++) {
        (*settings)[i].key = pack_text(&to, found.ptr[i].f0);
        (*settings)[i].value = pack_text(&to, found.ptr[i].f1);
    }
    cw_list_tuple2_string_string_free(&found);
}

capwasm_error capwasm_exec_run(capwasm_text command, const capwasm_text *arguments,
                               size_t argument_count, capwasm_bytes input,
                               capwasm_exec_output **output) {
    cw_string_t name = text_in(command);
    cw_list_u8_t given = bytes_in(input);
    pack words = pack_new(argument_count * sizeof(cw_string_t), 0);
    cw_string_t *word = (cw_string_t *)(void *)words.block;
    for (size_t i = 0; i < argument_count; i++)
        word[i] = text_in(arguments[i]);
    cw_list_string_t list = {word, argument_count};
    cw_exec_output_t found;
    uint8_t fault = 0;
    bool ran = cw_exec_run(&name, &list, &given, &found, &fault);
    free(words.block);
    if (!ran)
        return ERROR(exec_errors, fault);
    pack to = pack_new(sizeof **output, found.stdout_.len + found.stderr_.len + 1);
    capwasm_exec_output *out = (capwasm_exec_output *)(void *)to.block;
    out->exited = found.code.is_some;
    out->code = found.code.is_some ? found.code.val : 0;
    out->out = pack_bytes(&to, found.stdout_);
    out->err = pack_bytes(&to, found.stderr_);
    out->out_truncated = found.stdout_truncated;
    out->err_truncated = found.stderr_truncated;
    cw_exec_output_free(&found);
    *output = out;
    return CAPWASM_OK;
}
