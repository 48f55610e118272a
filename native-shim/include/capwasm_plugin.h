/*
 * capwasm_plugin.h: the ABI of native plugins, version 1.
 *
 * A native plugin is a shared object that runs in a process of its own, in a sandbox in which it can
 * open no file, no socket and no program.  All that it can do besides computing, it does through the
 * tables of this header.  They are the capabilities of wit/, function by function, with the same
 * grants, quotas, errors and records as a WebAssembly component has.
 *
 *     the plugin exports      capwasm_plugin_describe   once, after the library was loaded
 *                             capwasm_plugin_call       for each call; never two at a time
 *                             capwasm_plugin_free       after each call that gave data
 *     the host gives          capwasm_host              one table of functions for each capability
 *
 * Needs C11, or C++, and nothing but its standard headers.
 *
 *
 * RULES FOR ALL FUNCTIONS OF THE HOST
 *
 * Status.  Every function returns a capwasm_status: 0 is success, a number above 0 is an error of the
 * capability's own enum (the WIT case's index plus 1), a number below 0 is one of `enum
 * capwasm_status_word`.  Outputs are written on success alone.
 *
 * Threads.  They may be called on the thread that runs capwasm_plugin_call, and only until it returns.
 * Anywhere else (another thread, a constructor, capwasm_plugin_describe, capwasm_plugin_free, a signal
 * handler that came in the midst of one of them) they return CAPWASM_ABORTED and do nothing.
 *
 * Aborted.  CAPWASM_ABORTED within a call means that the call is over: its time or a limit ran out, or
 * its grant went.  The plugin should return from capwasm_plugin_call at once, with whatever result; the
 * host has forgotten the call.  Every later function returns CAPWASM_ABORTED too.
 *
 * Text and bytes.  A pointer and a size in bytes, never ended by a NUL.  Text is UTF-8.  A size of 0 may
 * come with any pointer.  What the plugin passes in is copied before the function returns.
 *
 * Options.  What WIT calls option<T> is a pointer here, and NULL is none.  An option of text or bytes
 * is none if its data is NULL; an empty one has a pointer that isn't NULL, and a size of 0.
 *
 * Outputs.  What a function gives out (text, bytes, lists) lies in the host's memory.  It may be read,
 * not written or freed, and is valid until the next function of the host is called, or until
 * capwasm_plugin_call returns.  Copy what must last.
 *
 * Handles.  An open file, a secret and a response are numbers that mean something to this instance of
 * the plugin alone; 0 is never one.  They stay valid from call to call until they are closed.  A handle
 * that was closed, made up, or is of another kind gives that capability's CLOSED, or
 * CAPWASM_BAD_ARGUMENT where it has none.  The host bounds how many are open at a time.
 *
 * Growing.  A new function is added at the end of its table and raises the table's `size`; a plugin that
 * wants it tests `size` first.  Nothing else changes within one ABI version.
 */
#ifndef CAPWASM_PLUGIN_H
#define CAPWASM_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of this ABI.  A host and a plugin that differ in it refuse each other. */
#define CAPWASM_ABI 1

/* Put before each of the three functions that a plugin exports. */
#if defined(__GNUC__)
#define CAPWASM_EXPORT __attribute__((visibility("default")))
#else
#define CAPWASM_EXPORT
#endif

/* ---- Common types ---------------------------------------------------------------------------- */

/* 0: done; above 0: an error of the capability; below 0: one of the words that follow. */
typedef int32_t capwasm_status;

enum capwasm_status_word {
    CAPWASM_OK = 0,
    /* The call is over, or the function may not be called here: see above. */
    CAPWASM_ABORTED = -1,
    /* Text that isn't UTF-8, NULL with a size, a number that is no case of its enum, a handle that is
       none.  Nothing was done. */
    CAPWASM_BAD_ARGUMENT = -2,
    /* The arguments together are larger than what one call may carry (limits.value-bytes).  Nothing was
       done. */
    CAPWASM_TOO_LARGE = -3
};

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

/* A handle; 0 is none. */
typedef uint32_t capwasm_handle;

/* ---- capwasm:fs/files@0.1.0 ------------------------------------------------------------------- */

enum capwasm_fs_error {
    /* Not granted, or not there: a plugin cannot tell which, outside its mounts. */
    CAPWASM_FS_ERROR_DENIED = 1,
    /* No such file, inside a granted mount. */
    CAPWASM_FS_ERROR_NOT_FOUND = 2,
    /* The file is there already. */
    CAPWASM_FS_ERROR_EXISTS = 3,
    /* A component of the path is not a directory. */
    CAPWASM_FS_ERROR_NOT_DIRECTORY = 4,
    /* The path names a directory, and a file was asked for. */
    CAPWASM_FS_ERROR_IS_DIRECTORY = 5,
    /* The directory is not empty. */
    CAPWASM_FS_ERROR_NOT_EMPTY = 6,
    /* The path or an argument is malformed, too long or not canonical. */
    CAPWASM_FS_ERROR_INVALID = 7,
    /* The operation would go over the mount's quota of bytes or files. */
    CAPWASM_FS_ERROR_QUOTA = 8,
    /* More than one read or write may carry. */
    CAPWASM_FS_ERROR_TOO_LARGE = 9,
    /* The handle was closed, or the grant revoked. */
    CAPWASM_FS_ERROR_CLOSED = 10,
    /* The device failed or is full. */
    CAPWASM_FS_ERROR_UNAVAILABLE = 11
};

/* What a mount lets its plugin do. */
enum capwasm_fs_access {
    /* Read only: no call changes anything. */
    CAPWASM_FS_ACCESS_READ = 0,
    /* Read, write, create, rename and remove. */
    CAPWASM_FS_ACCESS_READ_WRITE = 1
};

/* What a name stands for. */
enum capwasm_fs_kind {
    CAPWASM_FS_KIND_FILE = 0,
    CAPWASM_FS_KIND_DIRECTORY = 1,
    /* A symbolic link; it is never followed out of its mount. */
    CAPWASM_FS_KIND_LINK = 2,
    /* Anything else; it can't be opened. */
    CAPWASM_FS_KIND_OTHER = 3
};

/* How to open a file. */
enum capwasm_fs_mode {
    /* For reading; the file must be there. */
    CAPWASM_FS_MODE_READ = 0,
    /* For writing from the start; made if it isn't there, emptied if it is. */
    CAPWASM_FS_MODE_WRITE = 1,
    /* For writing at the end; made if it isn't there. */
    CAPWASM_FS_MODE_APPEND = 2,
    /* For reading and writing; the file must be there. */
    CAPWASM_FS_MODE_UPDATE = 3,
    /* For writing; fails with EXISTS if it is there. */
    CAPWASM_FS_MODE_CREATE = 4
};

/* One granted directory. */
typedef struct capwasm_fs_mount {
    /* Where the plugin sees it, such as /data. */
    capwasm_text path;
    /* enum capwasm_fs_access */
    int32_t access;
    /* Bytes that may be stored there, or NULL for no bound but the disk. */
    const uint64_t *quota_bytes;
    /* Bytes stored there now. */
    uint64_t used_bytes;
} capwasm_fs_mount;

/* What is known of a file. */
typedef struct capwasm_fs_info {
    /* The name within its directory. */
    capwasm_text name;
    /* enum capwasm_fs_kind */
    int32_t kind;
    /* Size in bytes; 0 for all but regular files. */
    uint64_t size;
    /* Last change, in nanoseconds since 1970-01-01T00:00:00Z. */
    uint64_t modified_ns;
} capwasm_fs_info;

/* Files beneath the directories that the plugin was granted.  A path is absolute and begins with a
   mount (/data/report.txt).  Errors: enum capwasm_fs_error. */
typedef struct capwasm_fs {
    /* Size of this table in bytes. */
    size_t size;

    /* The granted directories, in the order of the manifest. */
    capwasm_status (*mounts)(const capwasm_fs_mount **mounts, size_t *count);

    /* Opens a regular file; `mode` is one of enum capwasm_fs_mode.  Close the handle with `close`. */
    capwasm_status (*open)(const char *path, size_t path_size, int32_t mode, capwasm_handle *file);

    /* Reads up to `length` bytes (at most 1 MiB) at `offset`; empty bytes are the end. */
    capwasm_status (*read)(capwasm_handle file, uint64_t offset, uint32_t length, capwasm_bytes *bytes);

    /* Writes all the bytes (at most 1 MiB) at `offset`; a file opened to append ignores it. */
    capwasm_status (*write)(capwasm_handle file, uint64_t offset, const uint8_t *bytes, size_t size);

    /* Size of an open file in bytes. */
    capwasm_status (*get_size)(capwasm_handle file, uint64_t *size);

    /* Cuts or extends the file to `size` bytes. */
    capwasm_status (*set_size)(capwasm_handle file, uint64_t size);

    /* Returns once the bytes are on the device. */
    capwasm_status (*sync)(capwasm_handle file);

    /* Closes an open file.  Costs no round trip: the host is told with what is asked next. */
    capwasm_status (*close)(capwasm_handle file);

    /* What is known of the file or directory at `path`; a last symbolic link is not followed. */
    capwasm_status (*stat)(const char *path, size_t path_size, capwasm_fs_info *info);

    /* The entries of a directory, sorted by name, after the name `after` (an option), at most 1,000 at
       a time. */
    capwasm_status (*list)(const char *path, size_t path_size, const char *after, size_t after_size,
                           const capwasm_fs_info **entries, size_t *count);

    /* Makes a directory. */
    capwasm_status (*make_directory)(const char *path, size_t path_size);

    /* Removes a file, a link or an empty directory. */
    capwasm_status (*remove)(const char *path, size_t path_size);

    /* Renames within one mount, replacing a file that is there. */
    capwasm_status (*rename)(const char *from, size_t from_size, const char *to, size_t to_size);

    /* A file descriptor, read-only, of an open file: for libraries that want one, or mmap.
     *
     * Has no twin in wit/.  The plugin owns `descriptor` and closes it with close(2); it does not end
     * with the handle.  It can't be called back, so if the grant is revoked the host ends the process. */
    capwasm_status (*descriptor)(capwasm_handle file, int *descriptor);
} capwasm_fs;

/* ---- capwasm:secrets/store@0.1.0 and capwasm:secrets/reveal@0.1.0 ----------------------------- */

enum capwasm_secrets_error {
    /* Not granted, or not there: a plugin cannot tell which. */
    CAPWASM_SECRETS_ERROR_DENIED = 1,
    /* The handle was closed, its lease ran out, or the secret was revoked. */
    CAPWASM_SECRETS_ERROR_CLOSED = 2,
    /* The vault can't be reached. */
    CAPWASM_SECRETS_ERROR_UNAVAILABLE = 3
};

/* Handles to the secrets that the plugin was granted: holding one is not knowing the secret.  Errors:
   enum capwasm_secrets_error. */
typedef struct capwasm_secrets {
    /* Size of this table in bytes. */
    size_t size;

    /* A handle to the secret of that name.  Close it with `close`. */
    capwasm_status (*get)(const char *name, size_t name_size, capwasm_handle *secret);

    /* The name it was granted under. */
    capwasm_status (*name)(capwasm_handle secret, capwasm_text *name);

    /* Milliseconds until the lease runs out; 0 when it has, or when the secret was revoked. */
    capwasm_status (*lease_ms)(capwasm_handle secret, uint64_t *lease_ms);

    /* The secret's bytes: a grant of its own, high risk, each use on record. */
    capwasm_status (*reveal)(capwasm_handle secret, capwasm_bytes *value);

    /* Closes a handle.  Costs no round trip. */
    capwasm_status (*close)(capwasm_handle secret);
} capwasm_secrets;

/* ---- capwasm:fetch/client@0.1.0 --------------------------------------------------------------- */

enum capwasm_fetch_error {
    /* Not granted: the origin, path, method, header, redirect or address. */
    CAPWASM_FETCH_ERROR_DENIED = 1,
    /* The URL, method, a header or an argument is malformed. */
    CAPWASM_FETCH_ERROR_INVALID = 2,
    /* The request or response is larger than the limits allow. */
    CAPWASM_FETCH_ERROR_TOO_LARGE = 3,
    /* The host, the origin or the call's own time ran out. */
    CAPWASM_FETCH_ERROR_TIMEOUT = 4,
    /* The handle was closed, or the grant revoked. */
    CAPWASM_FETCH_ERROR_CLOSED = 5,
    /* The name doesn't resolve, or the origin can't be reached or broke off. */
    CAPWASM_FETCH_ERROR_UNAVAILABLE = 6,
    /* The origin's certificate or TLS is not acceptable. */
    CAPWASM_FETCH_ERROR_INSECURE = 7
};

/* What to do with a redirect. */
enum capwasm_fetch_redirects {
    /* Follow it if the grant allows its target; up to 10. */
    CAPWASM_FETCH_REDIRECTS_FOLLOW = 0,
    /* Return the redirect as the response. */
    CAPWASM_FETCH_REDIRECTS_MANUAL = 1,
    /* Fail with DENIED. */
    CAPWASM_FETCH_REDIRECTS_REFUSE = 2
};

/* One header.  A name may stand more than once. */
typedef struct capwasm_fetch_header {
    /* Name, in any case. */
    capwasm_text name;
    /* Value: visible ASCII, spaces and tabs. */
    capwasm_text value;
} capwasm_fetch_header;

/* A request, whole. */
typedef struct capwasm_fetch_request {
    /* GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS. */
    capwasm_text method;
    /* Absolute https: URL (http: where granted). */
    capwasm_text url;
    /* Headers; those that frame the message (Host, Content-Length, ...) are the host's own. */
    const capwasm_fetch_header *headers;
    size_t header_count;
    /* The body; data is NULL for none. */
    capwasm_bytes body;
    /* Time for the whole exchange, in milliseconds; NULL for what the limits allow. */
    const uint32_t *timeout_ms;
    /* enum capwasm_fetch_redirects */
    int32_t redirects;
} capwasm_fetch_request;

/* HTTP to the origins that the plugin was granted.  Errors: enum capwasm_fetch_error. */
typedef struct capwasm_fetch {
    /* Size of this table in bytes. */
    size_t size;

    /* Sends a request and returns once the response's headers are here.  Each of `credentials` is a
     * handle of secrets.get: the host puts the secret into the request, and only towards the origins
     * that its grant names.  Close the response with `close`. */
    capwasm_status (*send)(const capwasm_fetch_request *request, const capwasm_handle *credentials,
                           size_t credential_count, capwasm_handle *response);

    /* Status code, such as 200. */
    capwasm_status (*status)(capwasm_handle response, uint16_t *status);

    /* Headers, without those that frame the message or carry injected secrets. */
    capwasm_status (*headers)(capwasm_handle response, const capwasm_fetch_header **headers,
                              size_t *count);

    /* The URL that answered, after redirects. */
    capwasm_status (*url)(capwasm_handle response, capwasm_text *url);

    /* Up to `length` bytes of the decoded body (at most 1 MiB); empty bytes are the end. */
    capwasm_status (*read)(capwasm_handle response, uint32_t length, capwasm_bytes *bytes);

    /* The rest of the body, if it is at most `limit` bytes; else TOO_LARGE. */
    capwasm_status (*read_all)(capwasm_handle response, uint32_t limit, capwasm_bytes *bytes);

    /* Closes a response, and its connection.  Costs no round trip: the connection ends when the host is
       asked for something next, or when the call returns. */
    capwasm_status (*close)(capwasm_handle response);
} capwasm_fetch;

/* ---- capwasm:kv/store@0.1.0 ------------------------------------------------------------------- */

enum capwasm_kv_error {
    /* Not granted. */
    CAPWASM_KV_ERROR_DENIED = 1,
    /* A key is empty, longer than 512 bytes, or holds a control character. */
    CAPWASM_KV_ERROR_INVALID = 2,
    /* The store's quota of bytes or keys is used up. */
    CAPWASM_KV_ERROR_QUOTA = 3,
    /* A value is larger than the limit. */
    CAPWASM_KV_ERROR_TOO_LARGE = 4,
    /* The grant was revoked. */
    CAPWASM_KV_ERROR_CLOSED = 5,
    /* The store can't be read or written. */
    CAPWASM_KV_ERROR_UNAVAILABLE = 6
};

/* A small key-value store of the plugin's own.  Errors: enum capwasm_kv_error. */
typedef struct capwasm_kv {
    /* Size of this table in bytes. */
    size_t size;

    /* The value of `key`; data is NULL for none. */
    capwasm_status (*get)(const char *key, size_t key_size, capwasm_bytes *value);

    /* Stores a value, for `*ttl_ms` milliseconds if given. */
    capwasm_status (*set)(const char *key, size_t key_size, const uint8_t *value, size_t value_size,
                          const uint64_t *ttl_ms);

    /* Stores `value` if the key's value is `expected` (an option; none: no value); `*stored` is 1 if it
       did, else 0. */
    capwasm_status (*compare_and_set)(const char *key, size_t key_size, const uint8_t *expected,
                                      size_t expected_size, const uint8_t *value, size_t value_size,
                                      uint8_t *stored);

    /* Adds `delta` to the whole number at `key` (none counts as 0) and gives the sum. */
    capwasm_status (*increment)(const char *key, size_t key_size, int64_t delta, int64_t *sum);

    /* Removes `key`; `*removed` is 1 if it was there, else 0.  (`delete` in WIT, a word of C++.) */
    capwasm_status (*remove)(const char *key, size_t key_size, uint8_t *removed);

    /* Keys that begin with `prefix`, sorted, after `after` (an option), at most 1,000 at a time. */
    capwasm_status (*keys)(const char *prefix, size_t prefix_size, const char *after, size_t after_size,
                           const capwasm_text **keys, size_t *count);
} capwasm_kv;

/* ---- capwasm:log/log@0.1.0 -------------------------------------------------------------------- */

/* How grave a record is. */
enum capwasm_log_level {
    /* For the author. */
    CAPWASM_LOG_LEVEL_DEBUG = 0,
    /* Worth keeping. */
    CAPWASM_LOG_LEVEL_INFO = 1,
    /* Something to look at. */
    CAPWASM_LOG_LEVEL_WARN = 2,
    /* Something failed. */
    CAPWASM_LOG_LEVEL_ERROR = 3
};

/* A value that belongs to a record. */
typedef struct capwasm_log_field {
    /* Name: letters, digits, _, - and . */
    capwasm_text key;
    /* Value. */
    capwasm_text value;
} capwasm_log_field;

/* The plugin's log.  Secrets that the host knows are taken out before anything is kept. */
typedef struct capwasm_log {
    /* Size of this table in bytes. */
    size_t size;

    /* Writes a record; `level` is one of enum capwasm_log_level.  What is over the size or rate that was
       granted is cut or dropped, and counted; it is never an error. */
    capwasm_status (*write)(int32_t level, const char *message, size_t message_size,
                            const capwasm_log_field *fields, size_t field_count);
} capwasm_log;

/* ---- capwasm:clock/clock@0.1.0 ---------------------------------------------------------------- */

/* Time, at the resolution that was granted. */
typedef struct capwasm_clock {
    /* Size of this table in bytes. */
    size_t size;

    /* Nanoseconds since 1970-01-01T00:00:00Z. */
    capwasm_status (*now)(uint64_t *ns);

    /* Nanoseconds since some moment before this instance began; never goes back. */
    capwasm_status (*monotonic)(uint64_t *ns);

    /* Waits; returns early when the call's time runs out.  At most what a host call may take. */
    capwasm_status (*sleep)(uint64_t ns);
} capwasm_clock;

/* ---- capwasm:random/random@0.1.0 -------------------------------------------------------------- */

enum capwasm_random_error {
    /* Not granted. */
    CAPWASM_RANDOM_ERROR_DENIED = 1,
    /* More than one call may ask for (64 KiB). */
    CAPWASM_RANDOM_ERROR_TOO_LARGE = 2
};

/* Random bytes, fit for keys.  Errors: enum capwasm_random_error. */
typedef struct capwasm_random {
    /* Size of this table in bytes. */
    size_t size;

    /* `length` bytes from the system's generator. */
    capwasm_status (*bytes)(uint32_t length, capwasm_bytes *bytes);

    /* 64 random bits. */
    capwasm_status (*next_u64)(uint64_t *value);
} capwasm_random;

/* ---- capwasm:config/config@0.1.0 -------------------------------------------------------------- */

/* One setting. */
typedef struct capwasm_config_setting {
    capwasm_text key;
    capwasm_text value;
} capwasm_config_setting;

/* Settings that the operator gave the plugin.  Not for secrets. */
typedef struct capwasm_config {
    /* Size of this table in bytes. */
    size_t size;

    /* The value of a setting that was granted; data is NULL for none. */
    capwasm_status (*get)(const char *key, size_t key_size, capwasm_text *value);

    /* All the settings that were granted, sorted by key. */
    capwasm_status (*all)(const capwasm_config_setting **settings, size_t *count);
} capwasm_config;

/* ---- capwasm:exec/commands@0.1.0 -------------------------------------------------------------- */

enum capwasm_exec_error {
    /* Not granted: the command, these arguments, or one more run within this call. */
    CAPWASM_EXEC_ERROR_DENIED = 1,
    /* A name or an argument is too long, or holds a control character. */
    CAPWASM_EXEC_ERROR_INVALID = 2,
    /* The input is larger than granted. */
    CAPWASM_EXEC_ERROR_TOO_LARGE = 3,
    /* The command took longer than it or a host call may, and was killed. */
    CAPWASM_EXEC_ERROR_TIMEOUT = 4,
    /* The grant was revoked; a command that ran was killed. */
    CAPWASM_EXEC_ERROR_CLOSED = 5,
    /* The host can't run it now. */
    CAPWASM_EXEC_ERROR_UNAVAILABLE = 6
};

/* What a command left when it ended. */
typedef struct capwasm_exec_output {
    /* Its exit code; NULL if a signal ended it: a crash, or one of its limits. */
    const int32_t *code;
    /* What it wrote to its standard output, up to what is granted. */
    capwasm_bytes stdout_bytes;
    /* What it wrote to its standard error, up to what is granted. */
    capwasm_bytes stderr_bytes;
    /* 1 if it would have written more to its standard output, which was closed then; else 0. */
    uint8_t stdout_truncated;
    /* 1 if it would have written more to its standard error, which was closed then; else 0. */
    uint8_t stderr_truncated;
} capwasm_exec_output;

/* Programs of the host that the operator named, each run in a sandbox of its own.  Errors: enum
   capwasm_exec_error. */
typedef struct capwasm_exec {
    /* Size of this table in bytes. */
    size_t size;

    /* Runs a command to its end.  `arguments` fill the open places of the command, in order, one each;
       `input` is its standard input.  An exit code other than 0 is no error of this function. */
    capwasm_status (*run)(const char *command, size_t command_size, const capwasm_text *arguments,
                          size_t argument_count, const uint8_t *input, size_t input_size,
                          capwasm_exec_output *output);
} capwasm_exec;

/* ---- The host --------------------------------------------------------------------------------- */

/* One table a capability.  Each is there, granted or not: what isn't granted is denied when it is
   tried.  Valid from capwasm_plugin_describe on, for as long as the process lives. */
typedef struct capwasm_host {
    /* CAPWASM_ABI of the host. */
    uint32_t abi;
    /* Size of this struct in bytes. */
    uint32_t size;
    const capwasm_fs *fs;
    const capwasm_fetch *fetch;
    const capwasm_secrets *secrets;
    const capwasm_kv *kv;
    const capwasm_log *log;
    const capwasm_clock *clock;
    const capwasm_random *random;
    const capwasm_config *config;
    const capwasm_exec *exec;
} capwasm_host;

/* ---- The plugin ------------------------------------------------------------------------------- */

/* What a plugin says of itself.  Static memory of the plugin; read once. */
typedef struct capwasm_description {
    /* CAPWASM_ABI that the plugin was built with. */
    uint32_t abi;
    /* sizeof(capwasm_description). */
    uint32_t size;
    /* For people; at most 128 bytes. */
    capwasm_text name;
    /* The topics that it handles, for people; at most 256 of at most 256 bytes each. */
    const capwasm_text *topics;
    size_t topic_count;
} capwasm_description;

/* What a call gives.  Set to zeros before the call. */
typedef struct capwasm_result {
    /* Owned by the plugin; handed to capwasm_plugin_free, if it isn't NULL, once the host has copied it. */
    void *data;
    size_t size;
} capwasm_result;

/* What capwasm_plugin_call returns.  Any other number is a fault of the plugin: the call fails with
   `guest.trap`, and the data is not looked at. */
enum capwasm_call_result {
    /* The data is the answer: bytes. */
    CAPWASM_CALL_OK = 0,
    /* The data is the message of an error: text. */
    CAPWASM_CALL_ERROR = 1
};

/* Called once, after the library was loaded and before any call.
 *
 * Keep `host`.  Returns NULL if `abi` is not a version that the plugin was built for; the host then ends
 * the process. */
CAPWASM_EXPORT const capwasm_description *capwasm_plugin_describe(uint32_t abi, const capwasm_host *host);

/* Handles a message: capwasm:plugin/handler@0.1.0#handle.
 *
 * `topic` is text, `message` is bytes; both are valid until this returns, may be read and not written.
 * A large message lies in memory that the plugin shares with the host, without a copy.  Returns one of
 * enum capwasm_call_result. */
CAPWASM_EXPORT int capwasm_plugin_call(const char *topic, size_t topic_size, const uint8_t *message,
                                       size_t message_size, capwasm_result *result);

/* Frees the data of a result.  Called once for each that wasn't NULL, on the same thread, after the call
   has returned. */
CAPWASM_EXPORT void capwasm_plugin_free(void *data, size_t size);

#ifdef __cplusplus
}
#endif

#endif /* CAPWASM_PLUGIN_H */
