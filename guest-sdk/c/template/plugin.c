/* What __NAME__ does: each function of wit/world.wit is one here.
 *
 * plugin.h is made by the build of wit/world.wit; it declares what is to be written. */

#include <capwasm.h>

#include "plugin.h"

static bool fail(plugin_string_t *err, const char *why) {
    plugin_string_dup(err, why);
    return false;
}

static bool greet(capwasm_text name, exports_api_greeting_t *ret, plugin_string_t *err) {
    if (name.size == 0)
        return fail(err, "a name, please");

    int64_t count;
    capwasm_text key = capwasm_format("seen/%.*s", (int)name.size, name.data);
    capwasm_error error = capwasm_kv_increment(key, 1, &count);
    capwasm_free(key.data);
    if (error)
        return fail(err, capwasm_word(error));

    capwasm_log_field field = {CAPWASM_TEXT("name"), name};
    capwasm_log(CAPWASM_LOG_INFO, CAPWASM_TEXT("greeted"), &field, 1);

    /* What is returned must come from malloc, and is freed by the caller. */
    capwasm_text text = capwasm_format("Hello, %.*s!", (int)name.size, name.data);
    CAPWASM_GIVE(&ret->text, text);
    ret->before = (uint32_t)(count - 1);
    return true;
}

bool exports_api_greet(plugin_string_t *name, exports_api_greeting_t *ret, plugin_string_t *err) {
    bool good = greet(CAPWASM_TEXT_IN(*name), ret, err);
    plugin_string_free(name); /* Arguments are ours to free. */
    return good;
}
