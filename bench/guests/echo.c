/* A native plugin: `echo` gives its message back, `clock` asks for the time as often as it is long. */
#include "capwasm_plugin.h"

#include <stdlib.h>
#include <string.h>

static const capwasm_host *host;

const capwasm_description *capwasm_plugin_describe(uint32_t abi, const capwasm_host *given)
{
    static const capwasm_description description = {
        .abi = CAPWASM_ABI, .size = sizeof description, .name = {"echo", 4}};
    (void)abi;
    host = given;
    return &description;
}

int capwasm_plugin_call(const char *topic, size_t topic_size, const uint8_t *message, size_t size,
                        capwasm_result *result)
{
    uint64_t time;
    if (topic_size == 5 && memcmp(topic, "clock", 5) == 0) {
        for (size_t i = 0; i < size; i++)
            host->clock->monotonic(&time);
        return CAPWASM_CALL_OK;
    }
    result->data = malloc(size + 1);
    if (result->data == NULL)
        return CAPWASM_CALL_ERROR;
    memcpy(result->data, message, size);
    result->size = size;
    return CAPWASM_CALL_OK;
}

void capwasm_plugin_free(void *data, size_t size)
{
    (void)size;
    free(data);
}
