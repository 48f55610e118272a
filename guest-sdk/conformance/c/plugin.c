/* The conformance plugin in C: see ../README.md. */

#include <capwasm.h>

#include <stdio.h>

#include "plugin.h"

/* ---- types: gives back what it is given.  Arguments are ours, and so may be handed on. ---------- */

bool exports_types_echo_bool(bool value) {
    return value;
}

uint8_t exports_types_echo_u8(uint8_t value) {
    return value;
}

uint16_t exports_types_echo_u16(uint16_t value) {
    return value;
}

uint32_t exports_types_echo_u32(uint32_t value) {
    return value;
}

uint64_t exports_types_echo_u64(uint64_t value) {
    return value;
}

int8_t exports_types_echo_s8(int8_t value) {
    return value;
}

int16_t exports_types_echo_s16(int16_t value) {
    return value;
}

int32_t exports_types_echo_s32(int32_t value) {
    return value;
}

int64_t exports_types_echo_s64(int64_t value) {
    return value;
}

float exports_types_echo_f32(float value) {
    return value;
}

double exports_types_echo_f64(double value) {
    return value;
}

uint32_t exports_types_echo_char(uint32_t value) {
    return value;
}

void exports_types_echo_string(plugin_string_t *value, plugin_string_t *ret) {
    *ret = *value;
}

void exports_types_echo_bytes(plugin_list_u8_t *value, plugin_list_u8_t *ret) {
    *ret = *value;
}

void exports_types_echo_strings(plugin_list_string_t *value, plugin_list_string_t *ret) {
    *ret = *value;
}

void exports_types_echo_numbers(plugin_list_u32_t *value, plugin_list_u32_t *ret) {
    *ret = *value;
}

void exports_types_echo_point(exports_types_point_t *value, exports_types_point_t *ret) {
    *ret = *value;
}

void exports_types_echo_shape(exports_types_shape_t *value, exports_types_shape_t *ret) {
    *ret = *value;
}

void exports_types_echo_tuple(plugin_tuple3_u8_string_bool_t *value, plugin_tuple3_u8_string_bool_t *ret) {
    *ret = *value;
}

void exports_types_echo_amount(exports_types_amount_t *value, exports_types_amount_t *ret) {
    *ret = *value;
}

exports_types_colour_t exports_types_echo_colour(exports_types_colour_t value) {
    return value;
}

exports_types_rights_t exports_types_echo_rights(exports_types_rights_t value) {
    return value;
}

bool exports_types_echo_option(uint32_t *maybe_value, uint32_t *ret) {
    if (maybe_value)
        *ret = *maybe_value;
    return maybe_value != NULL;
}

bool exports_types_echo_option_option(plugin_option_u32_t *maybe_value, plugin_option_u32_t *ret) {
    if (maybe_value)
        *ret = *maybe_value;
    return maybe_value != NULL;
}

bool exports_types_echo_result(exports_types_result_u32_string_t *value, uint32_t *ret, plugin_string_t *err) {
    if (value->is_err)
        *err = value->val.err;
    else
        *ret = value->val.ok;
    return !value->is_err;
}

bool exports_types_checked(uint32_t value, plugin_string_t *maybe_fail, uint32_t *ret, plugin_string_t *err) {
    if (maybe_fail) {
        *err = *maybe_fail;
        return false;
    }
    *ret = value;
    return true;
}

void exports_types_describe(plugin_string_t *name, uint32_t count, exports_types_colour_t colour,
                            plugin_string_t *ret) {
    static const char *const colours[] = {"red", "green", "dark-blue"};
    capwasm_text text = capwasm_format("%.*s %u %s", (int)name->len, name->ptr, count, colours[colour]);
    CAPWASM_GIVE(ret, text);
    plugin_string_free(name);
}

void exports_types_nothing(void) {
}

/* ---- probe ------------------------------------------------------------------------------------- */

/* What an operation is given, and where it puts its text. */
typedef struct probe {
    plugin_list_string_t *arguments;
    capwasm_text out;
} probe;

typedef capwasm_error operation(probe *p);

static capwasm_text text_at(const probe *p, size_t at) {
    return at < p->arguments->len ? CAPWASM_TEXT_IN(p->arguments->ptr[at]) : CAPWASM_TEXT("");
}

static capwasm_bytes bytes_at(const probe *p, size_t at) {
    capwasm_text text = text_at(p, at);
    return capwasm_bytes_from(text.data, text.size);
}

static int64_t number_at(const probe *p, size_t at) {
    capwasm_text digits = capwasm_copy(text_at(p, at));
    int64_t number = strtoll(digits.data, NULL, 10);
    capwasm_free(digits.data);
    return number;
}

/* Adds text made as printf makes it, after a line break if that isn't the first. */
#define SAY(p, ...) say((p), capwasm_format(__VA_ARGS__))
static void say(probe *p, capwasm_text more) {
    if (p->out.data == NULL) {
        p->out = more;
        return;
    }
    capwasm_text both = capwasm_format("%s\n%s", p->out.data, more.data);
    capwasm_free(p->out.data);
    capwasm_free(more.data);
    p->out = both;
}

/* Hands on bytes that are ours as the whole text. */
static void say_bytes(probe *p, capwasm_bytes bytes) {
    p->out = capwasm_text_from(bytes.data, bytes.size);
}

static capwasm_error say_or_none(probe *p, capwasm_error error, capwasm_bytes bytes) {
    if (!error && bytes.data == NULL)
        SAY(p, "(none)");
    else if (!error)
        say_bytes(p, bytes);
    return error;
}

static capwasm_error say_yes(probe *p, capwasm_error error, bool yes) {
    if (!error)
        SAY(p, "%s", yes ? "yes" : "no");
    return error;
}

static capwasm_error fs_mounts(probe *p) {
    capwasm_fs_mount *mounts;
    size_t count;
    capwasm_fs_mounts(&mounts, &count);
    for (size_t i = 0; i < count; i++) {
        const capwasm_fs_mount *m = &mounts[i];
        const char *access = m->access == CAPWASM_FS_READ_ONLY ? "read" : "read-write";
        if (m->has_quota)
            SAY(p, "%s %s %llu %llu", m->path.data, access, m->quota_bytes, m->used_bytes);
        else
            SAY(p, "%s %s - %llu", m->path.data, access, m->used_bytes);
    }
    capwasm_free(mounts);
    return CAPWASM_OK;
}

static capwasm_error fs_read(probe *p) {
    capwasm_file file;
    capwasm_error error = capwasm_fs_open(text_at(p, 0), CAPWASM_FS_READ, &file);
    if (error)
        return error;
    char *all = NULL;
    size_t size = 0;
    for (;;) {
        capwasm_bytes piece;
        error = capwasm_fs_read(file, size, 65536, &piece);
        if (error || piece.size == 0)
            break;
        all = capwasm_resize(all, size + piece.size);
        memcpy(all + size, piece.data, piece.size);
        size += piece.size;
        capwasm_free(piece.data);
    }
    capwasm_fs_close(file);
    if (!error)
        p->out = capwasm_text_from(all, size);
    return error;
}

static capwasm_error put(probe *p, capwasm_fs_mode mode) {
    capwasm_file file;
    capwasm_error error = capwasm_fs_open(text_at(p, 0), mode, &file);
    if (error)
        return error;
    error = capwasm_fs_write(file, 0, bytes_at(p, 1));
    capwasm_fs_close(file);
    return error;
}

static capwasm_error fs_write(probe *p) {
    return put(p, CAPWASM_FS_WRITE);
}

static capwasm_error fs_append(probe *p) {
    return put(p, CAPWASM_FS_APPEND);
}

static capwasm_error fs_create(probe *p) {
    return put(p, CAPWASM_FS_CREATE);
}

static capwasm_error fs_hold(probe *p) {
    int64_t wanted = number_at(p, 1);
    for (int64_t held = 0; held < wanted; held++) {
        capwasm_file file;
        capwasm_error error = capwasm_fs_open(text_at(p, 0), CAPWASM_FS_READ, &file);
        if (error)
            return error;
    }
    SAY(p, "%lld", wanted);
    return CAPWASM_OK;
}

static capwasm_error fs_size(probe *p) {
    capwasm_file file;
    capwasm_error error = capwasm_fs_open(text_at(p, 0), CAPWASM_FS_READ, &file);
    if (error)
        return error;
    uint64_t size;
    error = capwasm_fs_size(file, &size);
    capwasm_fs_close(file);
    if (!error)
        SAY(p, "%llu", size);
    return error;
}

static capwasm_error fs_truncate(probe *p) {
    capwasm_file file;
    capwasm_error error = capwasm_fs_open(text_at(p, 0), CAPWASM_FS_UPDATE, &file);
    if (error)
        return error;
    error = capwasm_fs_set_size(file, (uint64_t)number_at(p, 1));
    capwasm_fs_close(file);
    return error;
}

static capwasm_error fs_list(probe *p) {
    capwasm_fs_info *entries;
    size_t count;
    capwasm_error error = capwasm_fs_list(text_at(p, 0), NULL, &entries, &count);
    if (error)
        return error;
    for (size_t i = 0; i < count; i++)
        SAY(p, "%s", entries[i].name.data);
    capwasm_free(entries);
    return CAPWASM_OK;
}

static capwasm_error fs_stat(probe *p) {
    static const char *const kinds[] = {"file", "directory", "link", "other"};
    capwasm_fs_info *info;
    capwasm_error error = capwasm_fs_stat(text_at(p, 0), &info);
    if (error)
        return error;
    SAY(p, "%s %llu", kinds[info->kind], info->size);
    capwasm_free(info);
    return CAPWASM_OK;
}

static capwasm_error fs_mkdir(probe *p) {
    return capwasm_fs_make_directory(text_at(p, 0));
}

static capwasm_error fs_remove(probe *p) {
    return capwasm_fs_remove(text_at(p, 0));
}

static capwasm_error fs_rename(probe *p) {
    return capwasm_fs_rename(text_at(p, 0), text_at(p, 1));
}

/* The text behind that prefix; its data is NULL if there is another. */
static capwasm_text behind(capwasm_text text, capwasm_text prefix) {
    if (text.size < prefix.size || memcmp(text.data, prefix.data, prefix.size) != 0)
        return capwasm_text_from(NULL, 0);
    return capwasm_text_from(text.data + prefix.size, text.size - prefix.size);
}

/* Sends what METHOD URL and the arguments after `more` say. */
static capwasm_error sent(probe *p, size_t more, capwasm_response *response) {
    capwasm_fetch_header headers[8];
    capwasm_secret secret;
    capwasm_fetch_request request = {
        .method = text_at(p, 0),
        .url = text_at(p, 1),
        .headers = headers,
    };
    for (size_t i = more; i < p->arguments->len && request.header_count < 8; i++) {
        capwasm_text word = text_at(p, i), rest;
        const char *equals = memchr(word.data, '=', word.size);
        if ((rest = behind(word, CAPWASM_TEXT("secret:"))).data) {
            capwasm_error error = capwasm_secrets_get(rest, &secret);
            if (error)
                return error;
            request.credentials = &secret;
            request.credential_count = 1;
        } else if ((rest = behind(word, CAPWASM_TEXT("body:"))).data) {
            request.body = capwasm_bytes_from(rest.data, rest.size);
        } else if (equals) {
            size_t size = (size_t)(equals - word.data);
            headers[request.header_count++] = (capwasm_fetch_header){
                capwasm_text_from(word.data, size),
                capwasm_text_from(equals + 1, word.size - size - 1),
            };
        }
    }
    capwasm_error error = capwasm_fetch_send(&request, response);
    if (request.credential_count)
        capwasm_secrets_close(secret);
    return error;
}

static capwasm_error fetch(probe *p) {
    capwasm_response response;
    capwasm_error error = sent(p, 2, &response);
    if (error)
        return error;
    capwasm_bytes body;
    error = capwasm_fetch_read_all(response, 1 << 20, &body);
    if (!error) {
        SAY(p, "%u %s", capwasm_fetch_status(response), (const char *)body.data);
        capwasm_free(body.data);
    }
    capwasm_fetch_close(response);
    return error;
}

static capwasm_error fetch_header(probe *p) {
    capwasm_response response;
    capwasm_error error = sent(p, 3, &response);
    if (error)
        return error;
    capwasm_text value;
    capwasm_fetch_header_of(response, text_at(p, 2), &value);
    capwasm_fetch_close(response);
    return say_or_none(p, CAPWASM_OK, capwasm_bytes_from(value.data, value.size));
}

static capwasm_error fetch_stream(probe *p) {
    capwasm_response response;
    capwasm_error error = sent(p, 2, &response);
    if (error)
        return error;
    size_t total = 0;
    for (;;) {
        capwasm_bytes piece;
        error = capwasm_fetch_read(response, 1000, &piece);
        if (error)
            break;
        total += piece.size;
        capwasm_free(piece.data);
        if (piece.size == 0)
            break;
    }
    capwasm_fetch_close(response);
    if (!error)
        SAY(p, "%zu", total);
    return error;
}

static capwasm_error secret_get(probe *p) {
    capwasm_secret secret;
    capwasm_error error = capwasm_secrets_get(text_at(p, 0), &secret);
    if (error)
        return error;
    capwasm_secrets_name(secret, &p->out);
    capwasm_secrets_close(secret);
    return CAPWASM_OK;
}

static capwasm_error secret_lease(probe *p) {
    capwasm_secret secret;
    capwasm_error error = capwasm_secrets_get(text_at(p, 0), &secret);
    if (error)
        return error;
    say_yes(p, CAPWASM_OK, capwasm_secrets_lease_ms(secret) > 0);
    capwasm_secrets_close(secret);
    return CAPWASM_OK;
}

static capwasm_error secret_reveal(probe *p) {
    capwasm_secret secret;
    capwasm_error error = capwasm_secrets_get(text_at(p, 0), &secret);
    if (error)
        return error;
    capwasm_bytes value;
    error = capwasm_secrets_reveal(secret, &value);
    capwasm_secrets_close(secret);
    if (!error)
        say_bytes(p, value);
    return error;
}

static capwasm_error kv_get(probe *p) {
    capwasm_bytes value = {0};
    capwasm_error error = capwasm_kv_get(text_at(p, 0), &value);
    return say_or_none(p, error, value);
}

static capwasm_error kv_set(probe *p) {
    return capwasm_kv_set(text_at(p, 0), bytes_at(p, 1), (uint64_t)number_at(p, 2));
}

static capwasm_error kv_cas(probe *p) {
    capwasm_bytes expected = bytes_at(p, 1);
    bool none = capwasm_text_equal(text_at(p, 1), CAPWASM_TEXT("(none)")), stored = false;
    capwasm_error error =
        capwasm_kv_compare_and_set(text_at(p, 0), none ? NULL : &expected, bytes_at(p, 2), &stored);
    return say_yes(p, error, stored);
}

static capwasm_error kv_increment(probe *p) {
    int64_t sum;
    capwasm_error error = capwasm_kv_increment(text_at(p, 0), number_at(p, 1), &sum);
    if (!error)
        SAY(p, "%lld", sum);
    return error;
}

static capwasm_error kv_delete(probe *p) {
    bool removed = false;
    capwasm_error error = capwasm_kv_delete(text_at(p, 0), &removed);
    return say_yes(p, error, removed);
}

static capwasm_error kv_keys(probe *p) {
    capwasm_text *keys;
    size_t count;
    capwasm_error error = capwasm_kv_keys(text_at(p, 0), NULL, &keys, &count);
    if (error)
        return error;
    for (size_t i = 0; i < count; i++)
        SAY(p, "%s", keys[i].data);
    capwasm_free(keys);
    return CAPWASM_OK;
}

static capwasm_error log_one(probe *p) {
    static const char *const levels[] = {"debug", "info", "warn", "error"};
    capwasm_log_level level = CAPWASM_LOG_INFO;
    for (size_t i = 0; i < 4; i++)
        if (capwasm_text_equal(text_at(p, 0), capwasm_text_of(levels[i])))
            level = (capwasm_log_level)i;
    capwasm_log_field from = {CAPWASM_TEXT("from"), CAPWASM_TEXT("guest")};
    capwasm_log(level, text_at(p, 1), &from, 1);
    return CAPWASM_OK;
}

static capwasm_error log_flood(probe *p) {
    char line[1000];
    memset(line, 'x', sizeof line);
    for (int64_t left = number_at(p, 0); left > 0; left--)
        capwasm_log(CAPWASM_LOG_INFO, capwasm_text_from(line, sizeof line), NULL, 0);
    return CAPWASM_OK;
}

static capwasm_error clock_now(probe *p) {
    SAY(p, "%llu", capwasm_clock_now());
    return CAPWASM_OK;
}

static capwasm_error clock_monotonic(probe *p) {
    uint64_t first = capwasm_clock_monotonic();
    return say_yes(p, CAPWASM_OK, capwasm_clock_monotonic() >= first);
}

static capwasm_error clock_sleep(probe *p) {
    capwasm_clock_sleep((uint64_t)number_at(p, 0));
    return CAPWASM_OK;
}

static capwasm_error clock_loop(probe *p) {
    for (int64_t left = number_at(p, 0); left > 0; left--)
        capwasm_clock_monotonic();
    return CAPWASM_OK;
}

static capwasm_error random_count(probe *p) {
    capwasm_bytes bytes;
    capwasm_error error = capwasm_random_bytes((uint32_t)number_at(p, 0), &bytes);
    if (error)
        return error;
    SAY(p, "%zu", bytes.size);
    capwasm_free(bytes.data);
    return CAPWASM_OK;
}

static capwasm_error random_differ(probe *p) {
    uint8_t one[16], other[16];
    capwasm_error error = capwasm_random_fill(one, sizeof one);
    if (!error)
        error = capwasm_random_fill(other, sizeof other);
    return say_yes(p, error, memcmp(one, other, sizeof one) != 0);
}

static capwasm_error config_get(probe *p) {
    capwasm_text value;
    capwasm_config_get(text_at(p, 0), &value);
    return say_or_none(p, CAPWASM_OK, capwasm_bytes_from(value.data, value.size));
}

static capwasm_error config_all(probe *p) {
    capwasm_config_setting *settings;
    size_t count;
    capwasm_config_all(&settings, &count);
    for (size_t i = 0; i < count; i++)
        SAY(p, "%s=%s", settings[i].key.data, settings[i].value.data);
    capwasm_free(settings);
    return CAPWASM_OK;
}

static capwasm_error exec(probe *p) {
    size_t count = p->arguments->len > 2 ? p->arguments->len - 2 : 0;
    capwasm_text words[16];
    for (size_t i = 0; i < count && i < 16; i++)
        words[i] = text_at(p, i + 2);
    capwasm_exec_output *output;
    capwasm_error error =
        capwasm_exec_run(text_at(p, 0), words, count < 16 ? count : 16, bytes_at(p, 1), &output);
    if (error)
        return error;
    if (output->exited)
        SAY(p, "%d", output->code);
    else
        SAY(p, "-");
    SAY(p, "%s", (const char *)output->out.data);
    capwasm_free(output);
    return CAPWASM_OK;
}

static capwasm_error std_print(probe *p) {
    capwasm_text text = text_at(p, 0);
    fwrite(text.data, 1, text.size, stdout);
    putchar('\n');
    fflush(stdout);
    return CAPWASM_OK;
}

static capwasm_error hold_memory(probe *p) {
    int64_t wanted = number_at(p, 0);
    for (int64_t held = 0; held < wanted; held++) {
        volatile char *block = capwasm_alloc(1 << 20);
        for (size_t at = 0; at < 1 << 20; at += 4096)
            block[at] = 1;
    }
    SAY(p, "%lld", wanted);
    return CAPWASM_OK;
}

static volatile uint32_t turns;

static capwasm_error spin(probe *p) {
    (void)p;
    for (;;)
        turns++;
}

static uint32_t deeper(uint32_t depth) {
    turns = depth;
    return depth == UINT32_MAX ? depth : deeper(depth + 1) + turns;
}

static capwasm_error recurse(probe *p) {
    SAY(p, "%u", deeper(0));
    return CAPWASM_OK;
}

static capwasm_error panic(probe *p) {
    capwasm_text text = text_at(p, 0);
    fprintf(stderr, "%.*s\n", (int)text.size, text.data);
    abort();
}

static const struct {
    const char *name;
    operation *run;
} operations[] = {
    {"fs.mounts", fs_mounts},       {"fs.read", fs_read},
    {"fs.write", fs_write},         {"fs.append", fs_append},
    {"fs.create", fs_create},       {"fs.hold", fs_hold},
    {"fs.size", fs_size},           {"fs.truncate", fs_truncate},
    {"fs.list", fs_list},           {"fs.stat", fs_stat},
    {"fs.mkdir", fs_mkdir},         {"fs.remove", fs_remove},
    {"fs.rename", fs_rename},       {"fetch", fetch},
    {"fetch.header", fetch_header}, {"fetch.stream", fetch_stream},
    {"secret.get", secret_get},     {"secret.lease", secret_lease},
    {"secret.reveal", secret_reveal}, {"kv.get", kv_get},
    {"kv.set", kv_set},             {"kv.cas", kv_cas},
    {"kv.increment", kv_increment}, {"kv.delete", kv_delete},
    {"kv.keys", kv_keys},           {"log", log_one},
    {"log.flood", log_flood},       {"clock.now", clock_now},
    {"clock.monotonic", clock_monotonic}, {"clock.sleep", clock_sleep},
    {"clock.loop", clock_loop},     {"random", random_count},
    {"random.differ", random_differ}, {"config.get", config_get},
    {"config.all", config_all},     {"exec", exec},
    {"std.print", std_print},       {"alloc", hold_memory},
    {"spin", spin},                 {"recurse", recurse},
    {"panic", panic},
};

bool exports_probe_run(plugin_string_t *operation, plugin_list_string_t *arguments, plugin_string_t *ret,
                       plugin_string_t *err) {
    probe p = {.arguments = arguments};
    capwasm_text name = CAPWASM_TEXT_IN(*operation);
    size_t at = 0, count = sizeof operations / sizeof *operations;
    while (at < count && !capwasm_text_equal(name, capwasm_text_of(operations[at].name)))
        at++;
    if (at == count) {
        capwasm_text message = capwasm_format("no operation %.*s", (int)name.size, name.data);
        CAPWASM_GIVE(err, message);
    } else {
        capwasm_error error = operations[at].run(&p);
        if (error) {
            capwasm_text word = capwasm_copy(capwasm_text_of(capwasm_word(error)));
            CAPWASM_GIVE(err, word);
        } else {
            CAPWASM_GIVE(ret, p.out);
        }
        at = error ? count : at;
    }
    plugin_string_free(operation);
    plugin_list_string_free(arguments);
    return at < count;
}
