/*
 * needy.c: a plugin that is linked with another library of the host, and says where to look for it.
 */
#include "capwasm_plugin.h"

#include <stddef.h>

const capwasm_description *capwasm_plugin_describe(uint32_t abi, const capwasm_host *host)
{
    static const capwasm_description description = {
        CAPWASM_ABI, sizeof description, {"Needy", 5}, NULL, 0,
    };
    (void)host;
    return abi == CAPWASM_ABI ? &description : NULL;
}

int capwasm_plugin_call(const char *topic, size_t topic_size, const uint8_t *message,
                        size_t message_size, capwasm_result *result)
{
    (void)topic, (void)topic_size, (void)message, (void)message_size, (void)result;
    return CAPWASM_CALL_OK;
}

void capwasm_plugin_free(void *data, size_t size)
{
    (void)data, (void)size;
}
