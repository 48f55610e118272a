/*
 * A library that is no proper plugin, in the way that one of its own bytes says.  Tests copy it and write
 * another byte behind the colon.
 */
#include "capwasm_plugin.h"

#include <stdlib.h>
#include <unistd.h>

/* Volatile, and not constant: else the compiler knows which way it is. */
volatile char misfit[] = "MISFIT:-";

#define WAY (misfit[7])

static const capwasm_text topics[] = {{"fine", 4}, {"\xff\xfe", 2}};
static capwasm_description description = {CAPWASM_ABI, sizeof description, {"misfit", 6}, topics, 1};

__attribute__((constructor)) static void construct(void)
{
    if (WAY == 'c')
        abort();
    if (WAY == 'e')
        _exit(3);
}

const capwasm_description *capwasm_plugin_describe(uint32_t abi, const capwasm_host *host)
{
    (void)host;
    switch (WAY) {
    case 'n': /* of no version that there is */
        return NULL;
    case 'a': /* of another version */
        description.abi = abi + 1;
        break;
    case 's': /* of an older version, with fewer members */
        description.size = 8;
        break;
    case 'l': /* a name without end */
        description.name.size = 1 << 20;
        break;
    case 'p': /* a name that is nowhere */
        description.name.data = NULL;
        break;
    case 'u': /* a topic that is no text */
        description.topic_count = 2;
        break;
    case 't': /* more topics than there are bytes */
        description.topic_count = (size_t)-1;
        break;
    case 'o': /* topics that are nowhere */
        description.topics = NULL;
        break;
    case 'w': /* a description that is nowhere */
        return (const capwasm_description *)16;
    case 'h': /* none, ever */
        for (;;)
            pause();
    default:
        break;
    }
    return &description;
}

int capwasm_plugin_call(const char *topic, size_t topic_size, const uint8_t *message, size_t message_size,
                        capwasm_result *result)
{
    (void)topic, (void)topic_size, (void)message, (void)message_size, (void)result;
    return CAPWASM_CALL_OK;
}

void capwasm_plugin_free(void *data, size_t size)
{
    (void)data, (void)size;
}
