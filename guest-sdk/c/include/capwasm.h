/*
 * capwasm.h: what a plugin in C may ask of its host.
 *
 * One function for each function of wit/, over the bindings that stand in src/bindings.  A capability
 * works if plugin.toml asks for its table and the operator grants it; without the grant its functions
 * give CAPWASM_DENIED.  A plugin imports only what it calls.
 *
 *     #include <capwasm.h>
 *
 *     int64_t seen;
 *     capwasm_error error = capwasm_kv_increment(CAPWASM_TEXT("visits"), 1, &seen);
 *     if (error)
 *         capwasm_logf(CAPWASM_LOG_WARN, "kv: %s", capwasm_word(error));
 *
 * Needs C11, or C++, and the C library of WASI.
 *
 *
 * RULES FOR ALL FUNCTIONS
 *
 * Errors.  A function that can fail returns a capwasm_error: 0 is success.  Outputs are written on
 * success alone, so what failed needs no cleaning up.
 *
 * Text and bytes.  A pointer and a size in bytes, passed by value.  Text is UTF-8; a NUL within it is a
 * character like any other.  A size of 0 may come with any pointer.  CAPWASM_TEXT("...") is a literal,
 * capwasm_text_of(s) a string that ends with a NUL.
 *
 * Options.  What WIT calls option<T> is none if the pointer is NULL; of text and bytes, if `data` is.
 * Empty text that is there has a pointer that isn't NULL.
 *
 * Memory.  What you pass in stays yours, and is not kept.  What a function gives you is yours: each
 * output is ONE block of malloc, whatever it holds (a list with its texts, a record with its parts), and
 * capwasm_free() of the pointer that you were given frees all of it.  Text and bytes that you are given
 * are followed by a NUL that isn't counted.  There is no other way in which this header takes or gives
 * memory.  When there is none left, the call ends; no function returns NULL for that.
 *
 * Handles.  A file, a secret and a response are open until their `close`, once; a copy is the same
 * handle.  Using one after that ends the call.
 */
#ifndef CAPWASM_H
#define CAPWASM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Common types ---------------------------------------------------------------------------- */

/* Why an operation failed.  Each function says which of them it gives. */
typedef enum capwasm_error {
    CAPWASM_OK = 0,
    /* Not granted, or not there: a plugin cannot tell which. */
    CAPWASM_DENIED,
    /* No such file, inside a granted mount. */
    CAPWASM_NOT_FOUND,
    /* The file is there already. */
    CAPWASM_EXISTS,
    /* A component of the path is not a directory. */
    CAPWASM_NOT_DIRECTORY,
    /* The path names a directory, and a file was asked for. */
    CAPWASM_IS_DIRECTORY,
    /* The directory is not empty. */
    CAPWASM_NOT_EMPTY,
    /* A path, key, URL or argument is malformed, too long or not canonical. */
    CAPWASM_INVALID,
    /* The quota of the mount or of the store is used up. */
    CAPWASM_QUOTA,
    /* More than one operation may carry. */
    CAPWASM_TOO_LARGE,
    /* The time for it ran out. */
    CAPWASM_TIMEOUT,
    /* The grant was revoked, or a lease ran out. */
    CAPWASM_CLOSED,
    /* The device, the origin, the vault or the store can't be reached. */
    CAPWASM_UNAVAILABLE,
    /* The origin's certificate or TLS is not acceptable. */
    CAPWASM_INSECURE
} capwasm_error;

/* The error's word, as in wit/: "denied", "not-found"; "ok" for success.  Static memory. */
const char *capwasm_word(capwasm_error error);

/* UTF-8 text. */
typedef struct capwasm_text {
    const char *data;
    size_t size;
} capwasm_text;

/* Bytes. */
typedef struct capwasm_bytes {
    const uint8_t *data;
    size_t size;
} capwasm_bytes;

static inline capwasm_text capwasm_text_from(const void *data, size_t size) {
    capwasm_text text = {(const char *)data, size};
    return text;
}

static inline capwasm_bytes capwasm_bytes_from(const void *data, size_t size) {
    capwasm_bytes bytes = {(const uint8_t *)data, size};
    return bytes;
}

/* A string that ends with a NUL, as text.  Not copied. */
static inline capwasm_text capwasm_text_of(const char *string) {
    return capwasm_text_from(string, strlen(string));
}

/* A literal, as text or as bytes. */
#define CAPWASM_TEXT(literal) capwasm_text_from("" literal, sizeof(literal) - 1)
#define CAPWASM_BYTES(literal) capwasm_bytes_from("" literal, sizeof(literal) - 1)

/* Whether both are the same. */
static inline bool capwasm_text_equal(capwasm_text one, capwasm_text other) {
    return one.size == other.size && (one.size == 0 || memcmp(one.data, other.data, one.size) == 0);
}

/* Frees a block that a function of this header gave.  NULL is fine. */
static inline void capwasm_free(const void *block) {
    free((void *)(uintptr_t)block);
}

#if defined(__GNUC__)
#define CAPWASM_PRINTF(format, first) __attribute__((__format__(__printf__, format, first)))
#else
#define CAPWASM_PRINTF(format, first)
#endif

/* malloc and realloc, but when there is no memory left the call ends, and the host knows why.  What they
 * give is freed with free() or capwasm_free(). */
void *capwasm_alloc(size_t size);
void *capwasm_resize(void *block, size_t size);

/* Text made as printf makes it. */
capwasm_text capwasm_format(const char *format, ...) CAPWASM_PRINTF(1, 2);

/* A copy, with a NUL behind it that isn't counted. */
capwasm_text capwasm_copy(capwasm_text text);

/* ---- Between this header and your own world --------------------------------------------------- */

/* The build writes plugin.h and plugin.c from your wit/: a function of yours is a C function in them.
 * It owns the arguments that it is given (plugin_string_free and its like free them), and whoever calls
 * it owns the result: it is freed when the host has copied it, so it must come from malloc. */

/* A plugin_string_t or a list<u8> of plugin.h, as text or as bytes.  Not copied. */
#define CAPWASM_TEXT_IN(value) capwasm_text_from((value).ptr, (value).len)
#define CAPWASM_BYTES_IN(value) capwasm_bytes_from((value).ptr, (value).len)

/* Gives a block that is yours (an output of this header) away as a plugin_string_t or a list<u8>. */
#define CAPWASM_GIVE(target, block) \
    capwasm_give(&(target)->ptr, &(target)->len, (block).data, (block).size)
void capwasm_give(uint8_t **ptr, size_t *len, const void *block, size_t size);

/* ---- capwasm:fs/files: [[fs]] ----------------------------------------------------------------- */

/* Files beneath the directories that the plugin was granted.  A path is absolute and begins with a mount
 * (/data/report.txt).  The C library reaches the same mounts, with the same checks and quotas: fopen,
 * opendir and the rest work as well.
 *
 * All of them may give DENIED, INVALID, CLOSED and UNAVAILABLE. */

/* What a mount lets its plugin do. */
typedef enum capwasm_fs_access {
    /* Read only: no call changes anything. */
    CAPWASM_FS_READ_ONLY,
    /* Read, write, create, rename and remove. */
    CAPWASM_FS_READ_WRITE
} capwasm_fs_access;

/* One granted directory. */
typedef struct capwasm_fs_mount {
    /* Where the plugin sees it, such as /data. */
    capwasm_text path;
    capwasm_fs_access access;
    /* Whether there is a bound but the disk, and how many bytes may be stored there. */
    bool has_quota;
    uint64_t quota_bytes;
    /* Bytes stored there now. */
    uint64_t used_bytes;
} capwasm_fs_mount;

/* What a name stands for. */
typedef enum capwasm_fs_kind {
    CAPWASM_FS_FILE,
    CAPWASM_FS_DIRECTORY,
    /* A symbolic link; it is never followed out of its mount. */
    CAPWASM_FS_LINK,
    /* Anything else; it can't be opened. */
    CAPWASM_FS_OTHER
} capwasm_fs_kind;

/* What is known of a file. */
typedef struct capwasm_fs_info {
    /* The name within its directory. */
    capwasm_text name;
    capwasm_fs_kind kind;
    /* Size in bytes; 0 for all but regular files. */
    uint64_t size;
    /* Last change, in nanoseconds since 1970-01-01T00:00:00Z. */
    uint64_t modified_ns;
} capwasm_fs_info;

/* How to open a file. */
typedef enum capwasm_fs_mode {
    /* For reading; the file must be there. */
    CAPWASM_FS_READ,
    /* For writing from the start; made if it isn't there, emptied if it is. */
    CAPWASM_FS_WRITE,
    /* For writing at the end; made if it isn't there. */
    CAPWASM_FS_APPEND,
    /* For reading and writing; the file must be there. */
    CAPWASM_FS_UPDATE,
    /* For writing; fails with EXISTS if it is there. */
    CAPWASM_FS_CREATE
} capwasm_fs_mode;

/* An open file. */
typedef struct capwasm_file {
    int32_t handle;
} capwasm_file;

/* The granted directories, in the order of the manifest.  Never fails. */
void capwasm_fs_mounts(capwasm_fs_mount **mounts, size_t *count);

/* Opens a regular file.  Close it with capwasm_fs_close.
 * NOT_FOUND, EXISTS, NOT_DIRECTORY, IS_DIRECTORY, QUOTA. */
capwasm_error capwasm_fs_open(capwasm_text path, capwasm_fs_mode mode, capwasm_file *file);

/* Reads up to `length` bytes (at most 1 MiB) at `offset`; a size of 0 is the end.  TOO_LARGE. */
capwasm_error capwasm_fs_read(capwasm_file file, uint64_t offset, uint32_t length, capwasm_bytes *bytes);

/* Writes all the bytes (at most 1 MiB) at `offset`; a file opened to append ignores it.
 * QUOTA, TOO_LARGE. */
capwasm_error capwasm_fs_write(capwasm_file file, uint64_t offset, capwasm_bytes bytes);

/* Size of an open file in bytes. */
capwasm_error capwasm_fs_size(capwasm_file file, uint64_t *size);

/* Cuts or extends the file to `size` bytes.  QUOTA. */
capwasm_error capwasm_fs_set_size(capwasm_file file, uint64_t size);

/* Returns once the bytes are on the device. */
capwasm_error capwasm_fs_sync(capwasm_file file);

/* Closes an open file. */
void capwasm_fs_close(capwasm_file file);

/* The whole of a file, of any size.  As open and read. */
capwasm_error capwasm_fs_read_all(capwasm_text path, capwasm_bytes *bytes);

/* Makes or replaces a file, of any size.  As open and write. */
capwasm_error capwasm_fs_write_all(capwasm_text path, capwasm_bytes bytes);

/* What is known of the file or directory at `path`; a last symbolic link is not followed.
 * NOT_FOUND, NOT_DIRECTORY. */
capwasm_error capwasm_fs_stat(capwasm_text path, capwasm_fs_info **info);

/* The entries of a directory, sorted by name, after the name `*after` (NULL: from the first), at most
 * 1,000 at a time.  NOT_FOUND, NOT_DIRECTORY. */
capwasm_error capwasm_fs_list(capwasm_text path, const capwasm_text *after, capwasm_fs_info **entries,
                              size_t *count);

/* Makes a directory.  NOT_FOUND, EXISTS, NOT_DIRECTORY, QUOTA. */
capwasm_error capwasm_fs_make_directory(capwasm_text path);

/* Removes a file, a link or an empty directory.  NOT_FOUND, NOT_DIRECTORY, NOT_EMPTY. */
capwasm_error capwasm_fs_remove(capwasm_text path);

/* Renames within one mount, replacing a file that is there.
 * NOT_FOUND, EXISTS, NOT_DIRECTORY, IS_DIRECTORY, NOT_EMPTY. */
capwasm_error capwasm_fs_rename(capwasm_text from, capwasm_text to);

/* ---- capwasm:secrets/store and capwasm:secrets/reveal: [[secret]] ----------------------------- */

/* A secret that can be used, not seen. */
typedef struct capwasm_secret {
    int32_t handle;
} capwasm_secret;

/* A handle to the secret of that name.  Close it with capwasm_secrets_close.  DENIED, UNAVAILABLE. */
capwasm_error capwasm_secrets_get(capwasm_text name, capwasm_secret *secret);

/* The name it was granted under.  Never fails. */
void capwasm_secrets_name(capwasm_secret secret, capwasm_text *name);

/* Milliseconds until the lease runs out; 0 when it has, or when the secret was revoked. */
uint64_t capwasm_secrets_lease_ms(capwasm_secret secret);

/* The secret's bytes: needs `use = "reveal"`, high risk, each use on record.
 * DENIED, CLOSED, UNAVAILABLE. */
capwasm_error capwasm_secrets_reveal(capwasm_secret secret, capwasm_bytes *value);

/* Closes a handle. */
void capwasm_secrets_close(capwasm_secret secret);

/* ---- capwasm:fetch/client: [[net]] ------------------------------------------------------------ */

/* HTTP to the origins that the plugin was granted.  All that can fail may give DENIED, INVALID,
 * TOO_LARGE, TIMEOUT, CLOSED, UNAVAILABLE and INSECURE. */

/* What to do with a redirect. */
typedef enum capwasm_fetch_redirects {
    /* Follow it if the grant allows its target; up to 10. */
    CAPWASM_FETCH_FOLLOW,
    /* Return the redirect as the response. */
    CAPWASM_FETCH_MANUAL,
    /* Fail with DENIED. */
    CAPWASM_FETCH_REFUSE
} capwasm_fetch_redirects;

/* One header.  A name may stand more than once. */
typedef struct capwasm_fetch_header {
    /* Name, in any case. */
    capwasm_text name;
    /* Value: visible ASCII, spaces and tabs. */
    capwasm_text value;
} capwasm_fetch_header;

/* A request, whole.  What is left at 0 is left out, and redirects are followed. */
typedef struct capwasm_fetch_request {
    /* GET (also if it is left out), HEAD, POST, PUT, PATCH, DELETE or OPTIONS. */
    capwasm_text method;
    /* Absolute https: URL (http: where granted). */
    capwasm_text url;
    /* Headers; those that frame the message (Host, Content-Length, ...) are the host's own. */
    const capwasm_fetch_header *headers;
    size_t header_count;
    /* The body; none if its data is NULL. */
    capwasm_bytes body;
    /* Time for the whole exchange, in milliseconds; 0 for what the limits allow. */
    uint32_t timeout_ms;
    capwasm_fetch_redirects redirects;
    /* The host puts these secrets into the request, and only towards the origins that their grants
       name.  They stay open. */
    const capwasm_secret *credentials;
    size_t credential_count;
} capwasm_fetch_request;

/* A response whose body is read in pieces. */
typedef struct capwasm_response {
    int32_t handle;
} capwasm_response;

/* Sends a request and returns once the response's headers are here.  A status such as 404 is no error
 * of this function.  Close the response with capwasm_fetch_close. */
capwasm_error capwasm_fetch_send(const capwasm_fetch_request *request, capwasm_response *response);

/* The same for a GET with nothing but its URL. */
capwasm_error capwasm_fetch_get(capwasm_text url, capwasm_response *response);

/* Status code, such as 200. */
uint16_t capwasm_fetch_status(capwasm_response response);

/* Headers, without those that frame the message or carry injected secrets.  Never fails. */
void capwasm_fetch_headers(capwasm_response response, capwasm_fetch_header **headers, size_t *count);

/* The first header of that name, in any case; its data is NULL if there is none.  Never fails. */
void capwasm_fetch_header_of(capwasm_response response, capwasm_text name, capwasm_text *value);

/* The URL that answered, after redirects.  Never fails. */
void capwasm_fetch_url(capwasm_response response, capwasm_text *url);

/* Up to `length` bytes of the decoded body (at most 1 MiB); a size of 0 is the end. */
capwasm_error capwasm_fetch_read(capwasm_response response, uint32_t length, capwasm_bytes *bytes);

/* The rest of the body, if it is at most `limit` bytes; else TOO_LARGE. */
capwasm_error capwasm_fetch_read_all(capwasm_response response, uint32_t limit, capwasm_bytes *bytes);

/* Closes a response, and its connection. */
void capwasm_fetch_close(capwasm_response response);

/* ---- capwasm:kv/store: [kv] ------------------------------------------------------------------- */

/* A small key-value store of the plugin's own.  All of them may give DENIED, INVALID (a key is empty,
 * longer than 512 bytes, or holds a control character), CLOSED and UNAVAILABLE. */

/* The value of `key`; its data is NULL if there is none. */
capwasm_error capwasm_kv_get(capwasm_text key, capwasm_bytes *value);

/* Stores a value, for `ttl_ms` milliseconds if that isn't 0.  QUOTA, TOO_LARGE. */
capwasm_error capwasm_kv_set(capwasm_text key, capwasm_bytes value, uint64_t ttl_ms);

/* Stores `value` if the key's value is `*expected` (NULL: no value); says whether it did.
 * QUOTA, TOO_LARGE. */
capwasm_error capwasm_kv_compare_and_set(capwasm_text key, const capwasm_bytes *expected,
                                         capwasm_bytes value, bool *stored);

/* Adds `delta` to the whole number at `key` (none counts as 0) and gives the sum.  QUOTA. */
capwasm_error capwasm_kv_increment(capwasm_text key, int64_t delta, int64_t *sum);

/* Removes `key`; says whether it was there. */
capwasm_error capwasm_kv_delete(capwasm_text key, bool *removed);

/* Keys that begin with `prefix`, sorted, after `*after` (NULL: from the first), at most 1,000 at a
 * time. */
capwasm_error capwasm_kv_keys(capwasm_text prefix, const capwasm_text *after, capwasm_text **keys,
                              size_t *count);

/* ---- capwasm:log/log: [log] ------------------------------------------------------------------- */

/* How grave a record is. */
typedef enum capwasm_log_level {
    CAPWASM_LOG_DEBUG,
    CAPWASM_LOG_INFO,
    CAPWASM_LOG_WARN,
    CAPWASM_LOG_ERROR
} capwasm_log_level;

/* A value that belongs to a record. */
typedef struct capwasm_log_field {
    /* Name: letters, digits, _, - and . */
    capwasm_text key;
    capwasm_text value;
} capwasm_log_field;

/* Writes a record.  What is over the size or rate that was granted is cut or dropped, and counted; it is
 * never an error. */
void capwasm_log(capwasm_log_level level, capwasm_text message, const capwasm_log_field *fields,
                 size_t field_count);

/* The same with a message made as printf makes it, and no fields. */
void capwasm_logf(capwasm_log_level level, const char *format, ...) CAPWASM_PRINTF(2, 3);

/* ---- capwasm:clock/clock: [clock] ------------------------------------------------------------- */

/* Nanoseconds since 1970-01-01T00:00:00Z. */
uint64_t capwasm_clock_now(void);

/* Nanoseconds since some moment before this instance began; never goes back. */
uint64_t capwasm_clock_monotonic(void);

/* Waits; returns early when the call's time runs out.  At most what a host call may take. */
void capwasm_clock_sleep(uint64_t ns);

/* ---- capwasm:random/random: [random] ---------------------------------------------------------- */

/* `length` bytes from the system's generator, fit for keys.  DENIED, TOO_LARGE (over 64 KiB). */
capwasm_error capwasm_random_bytes(uint32_t length, capwasm_bytes *bytes);

/* The same into memory of your own, of any size.  DENIED. */
capwasm_error capwasm_random_fill(void *buffer, size_t size);

/* 64 random bits. */
uint64_t capwasm_random_u64(void);

/* ---- capwasm:config/config: [config] ---------------------------------------------------------- */

/* One setting. */
typedef struct capwasm_config_setting {
    capwasm_text key;
    capwasm_text value;
} capwasm_config_setting;

/* The value of a setting that was granted; its data is NULL if there is none.  Never fails. */
void capwasm_config_get(capwasm_text key, capwasm_text *value);

/* All the settings that were granted, sorted by key.  Never fails. */
void capwasm_config_all(capwasm_config_setting **settings, size_t *count);

/* ---- capwasm:exec/commands: [[exec]] ---------------------------------------------------------- */

/* What a command left when it ended. */
typedef struct capwasm_exec_output {
    /* Whether it ended by itself; if not, a signal ended it: a crash, or one of its limits. */
    bool exited;
    /* Its exit code, if it did. */
    int32_t code;
    /* What it wrote to its standard output and error, up to what is granted. */
    capwasm_bytes out;
    capwasm_bytes err;
    /* Whether it would have written more there, which was closed then. */
    bool out_truncated;
    bool err_truncated;
} capwasm_exec_output;

/* Runs a command that the operator named to its end.  `arguments` fill its open places, in order, one
 * each; `input` is its standard input.  An exit code other than 0 is no error of this function.
 * DENIED, INVALID, TOO_LARGE, TIMEOUT, CLOSED, UNAVAILABLE. */
capwasm_error capwasm_exec_run(capwasm_text command, const capwasm_text *arguments,
                               size_t argument_count, capwasm_bytes input,
                               capwasm_exec_output **output);

#ifdef __cplusplus
}
#endif

#endif /* CAPWASM_H */
