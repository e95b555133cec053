// A ggml backend that behaves as Metal does where it matters, and computes on the CPU.
//
// Built against the ggml headers of the library that loads it (ggml_backend_load); see build.py.
// What it can do, and which types it can do it for, comes from the environment: tables.py holds
// the tables of stock Metal and of the fork, as read from their ggml_metal_device_supports_op.
// Log lines have the form of ggml-metal's own. Every variable starts with SIM_METAL_:
//
//   FA            pairs of cache types with a FLASH_ATTN_EXT, "f16/f16 q8_0/q8_0 …"
//   HEADS         head sizes with one, "64 128 …"
//   SET_ROWS      types that can be written, "f16 q8_0 …"
//   PIPELINES     "k/v@head …": FLASH_ATTN_EXT that supports_op promises and no kernel exists for
//   DEVICES       how many MTL devices (GGML_METAL_DEVICES counts too)
//   CHIP          name of the chip
//   WORKING_SET   recommendedMaxWorkingSetSize, MiB; more can be allocated, and then command
//                 buffers fail
//   LIMIT         MiB that can be allocated at all
//   WRAPS         1: free memory wraps around below zero, as in builds of May 2026
//   PRESSURE      a file: the MiB over the working set are written there, for a fake vm_stat
//   FAIL          n: the n-th command buffer that writes a cache of FAIL_CACHE fails: nothing is
//                 written, the call has succeeded, synchronize logs and sets a flag
//   FAIL_CACHE    type of the cache that has to be written for it ("*": any); default "*"
//   FAIL_TOKENS   n: only command buffers whose cache writes have so many rows
//   FAIL_ONCE     a file: made at the failure, and while it is there none happens
//   FAIL_TEXT     localizedDescription of the failure
//   WRONG         x: results of attention are x larger in their first half of elements
//   COMPILE       text of the Metal compiler: the library does not compile, no context is made
//   COPY_MBPS     speed of copies between this device's buffers and others, MiB/s: makes a
//                 fallback as slow as it is on a Mac
//   BLAS          0: no accelerator named BLAS beside it (it has neither free memory nor any)

#define _POSIX_C_SOURCE 200809L
#include "ggml-backend-impl.h"
#include "ggml-cpu.h"
#include "ggml-impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MOST 16
#define MIB (1024.0 * 1024.0)

#define INFO(...)  ggml_log_internal(GGML_LOG_LEVEL_INFO, __VA_ARGS__)
#define WARN(...)  ggml_log_internal(GGML_LOG_LEVEL_WARN, __VA_ARGS__)
#define ERROR(...) ggml_log_internal(GGML_LOG_LEVEL_ERROR, __VA_ARGS__)

static const char * setting(const char * name, const char * otherwise) {
    char key[64];
    snprintf(key, sizeof key, "SIM_METAL_%s", name);
    const char * value = getenv(key);
    return value && *value ? value : otherwise;
}

static double number(const char * name, double otherwise) {
    const char * value = setting(name, NULL);
    return value ? atof(value) : otherwise;
}

// Whether a word stands in a list of words.
static bool listed(const char * list, const char * word) {
    size_t length = strlen(word);
    for (const char * at = list; (at = strstr(at, word)) != NULL; at += length) {
        bool starts = at == list || at[-1] == ' ';
        bool ends = at[length] == ' ' || at[length] == '\0';
        if (starts && ends) {
            return true;
        }
    }
    return false;
}

//
// devices
//

struct device {
    struct ggml_backend_device base;
    struct ggml_backend_buffer_type buffers, mapped;
    char name[16], mapped_name[32], chip[96];
    size_t used;
};

static struct device devices[MOST];
static int device_count;
static struct ggml_backend_reg registry;

static struct device * device_of(ggml_backend_dev_t dev) { return dev->context; }
static size_t working_set(void) { return (size_t) (number("WORKING_SET", 26800) * MIB); }

static void take(struct device * dev, size_t size) {
    dev->used += size;
    const char * path = setting("PRESSURE", NULL);
    if (path && dev->used > working_set()) {
        FILE * file = fopen(path, "w");
        if (file) {
            fprintf(file, "%.0f\n", (double) (dev->used - working_set()) / MIB);
            fclose(file);
        }
    }
}

// A copy between this device's memory and the host's, as slow as it was asked for.
static void copy(void * to, const void * from, size_t size) {
    double rate = number("COPY_MBPS", 0);
    memcpy(to, from, size);
    if (rate > 0) {
        double seconds = (double) size / MIB / rate;
        struct timespec span = { (time_t) seconds, (long) ((seconds - (time_t) seconds) * 1e9) };
        nanosleep(&span, NULL);
    }
}

//
// buffers
//

static struct device * buffer_device(ggml_backend_buffer_t buffer) { return buffer->buft->context; }

static void buffer_free(ggml_backend_buffer_t buffer) {
    buffer_device(buffer)->used -= buffer->size;
    if (buffer->buft == &buffer_device(buffer)->buffers) {
        free(buffer->context);
    }
}

static void * buffer_base(ggml_backend_buffer_t buffer) { return buffer->context; }

static void buffer_memset(ggml_backend_buffer_t buffer, struct ggml_tensor * tensor, uint8_t value, size_t offset, size_t size) {
    (void) buffer;
    memset((char *) tensor->data + offset, value, size);
}

static void buffer_set(ggml_backend_buffer_t buffer, struct ggml_tensor * tensor, const void * data, size_t offset, size_t size) {
    (void) buffer;
    copy((char *) tensor->data + offset, data, size);
}

static void buffer_get(ggml_backend_buffer_t buffer, const struct ggml_tensor * tensor, void * data, size_t offset, size_t size) {
    (void) buffer;
    copy(data, (const char *) tensor->data + offset, size);
}

static void buffer_clear(ggml_backend_buffer_t buffer, uint8_t value) {
    if (buffer->buft == &buffer_device(buffer)->buffers) {
        memset(buffer->context, value, buffer->size);
    }
}

static struct ggml_backend_buffer_i buffer_functions(void) {
    struct ggml_backend_buffer_i i;
    memset(&i, 0, sizeof i);
    i.free_buffer = buffer_free;
    i.get_base = buffer_base;
    i.memset_tensor = buffer_memset;
    i.set_tensor = buffer_set;
    i.get_tensor = buffer_get;
    i.clear = buffer_clear;
    return i;
}

static const char * type_name(ggml_backend_buffer_type_t type) {
    struct device * dev = type->context;
    return type == &dev->mapped ? dev->mapped_name : dev->name;
}

static size_t type_alignment(ggml_backend_buffer_type_t type) { (void) type; return 32; }
static bool type_is_host(ggml_backend_buffer_type_t type) { (void) type; return false; }

static ggml_backend_buffer_t type_alloc(ggml_backend_buffer_type_t type, size_t size) {
    struct device * dev = type->context;
    void * data = NULL;
    bool fits = dev->used + size <= (size_t) (number("LIMIT", 1e9) * MIB);
    if (!fits || posix_memalign(&data, 4096, size ? size : 64)) {
        ERROR("ggml_metal_buffer_init: error: failed to allocate buffer, size = %8.2f MiB\n", size / MIB);
        ERROR("ggml_backend_metal_buffer_type_alloc_buffer: failed to allocate Metal buffer of %zu bytes (out of memory)\n", size);
        return NULL;
    }
    take(dev, size);
    return ggml_backend_buffer_init(type, buffer_functions(), data, size);
}

// Unified memory: weights stay where the file is mapped.
static ggml_backend_buffer_t device_map(ggml_backend_dev_t dev, void * data, size_t size, size_t largest) {
    (void) largest;
    take(device_of(dev), size);
    ggml_log_internal(GGML_LOG_LEVEL_DEBUG,
        "ggml_metal_log_allocated_size: allocated buffer, size = %8.2f MiB, (%8.2f / %8.2f)\n",
        size / MIB, device_of(dev)->used / MIB, working_set() / MIB);
    if (device_of(dev)->used > working_set()) {
        WARN("ggml_metal_log_allocated_size: warning: current allocated size is greater than the recommended max working set size\n");
    }
    return ggml_backend_buffer_init(&device_of(dev)->mapped, buffer_functions(), data, size);
}

//
// the stream
//

struct stream {
    ggml_backend_t cpu;
    struct device * dev;
    bool failed, has_error;
};

static const char * stream_name(ggml_backend_t stream) { return device_of(stream->device)->name; }

static void stream_free(ggml_backend_t backend) {
    struct stream * stream = backend->context;
    INFO("ggml_metal_free: deallocating\n");
    ggml_backend_free(stream->cpu);
    free(stream);
    free(backend);
}

static void stream_synchronize(ggml_backend_t backend) {
    struct stream * stream = backend->context;
    if (!stream->failed) {
        return;
    }
    ERROR("ggml_metal_synchronize: error: command buffer 0 failed with status 5\n");
    ERROR("error: %s\n", setting("FAIL_TEXT", "Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)"));
    stream->has_error = true;
}

// Rows that a graph writes into a cache of the type wanted; 0: none.
static int64_t cache_rows(struct ggml_cgraph * graph, const char * wanted) {
    for (int i = 0; i < ggml_graph_n_nodes(graph); ++i) {
        struct ggml_tensor * node = ggml_graph_node(graph, i);
        if (node->op == GGML_OP_SET_ROWS && (!strcmp(wanted, "*") || !strcmp(ggml_type_name(node->type), wanted))) {
            return node->src[1]->ne[0];
        }
    }
    return 0;
}

static bool fails_now(struct ggml_cgraph * graph) {
    static int seen;
    double wanted = number("FAIL", 0);
    int64_t rows = wanted ? cache_rows(graph, setting("FAIL_CACHE", "*")) : 0;
    if (!rows || (number("FAIL_TOKENS", 0) && rows != (int64_t) number("FAIL_TOKENS", 0))) {
        return false;
    }
    if (++seen < wanted) {
        return false;
    }
    const char * once = setting("FAIL_ONCE", NULL);
    if (once) {
        if (access(once, F_OK) == 0) {
            return false;
        }
        FILE * file = fopen(once, "w");
        if (file) {
            fclose(file);
        }
    }
    return once || seen == wanted;
}

// Kernels that supports_op promises and that the library does not have: the pipeline is null, and
// the encoder reads through it.
static void use_pipelines(struct ggml_cgraph * graph) {
    const char * missing = setting("PIPELINES", "");
    for (int i = 0; *missing && i < ggml_graph_n_nodes(graph); ++i) {
        struct ggml_tensor * node = ggml_graph_node(graph, i);
        if (node->op != GGML_OP_FLASH_ATTN_EXT) {
            continue;
        }
        const char * k = ggml_type_name(node->src[1]->type);
        const char * v = ggml_type_name(node->src[2]->type);
        int head = (int) node->src[0]->ne[0];
        char key[96];
        snprintf(key, sizeof key, "%s/%s@%d", k, v, head);
        if (listed(missing, key)) {
            const char * form = "kernel_flash_attn_ext_vec_k%s_v%s_dk%d_dv%d";
            char base[160];
            snprintf(base, sizeof base, form, k, v, head, head);
            ERROR("ggml_metal_library_compile_pipeline: failed to compile pipeline: base = '%s', name = '%s_mask=1_sinks=0_bias=0_scap=0_kvpad=0'\n", base, base);
            ERROR("ggml_metal_library_compile_pipeline: Error Domain=MTLLibraryErrorDomain Code=5 \"Function %s was not found in the library\"\n", base);
            fflush(stderr);
            volatile int * pipeline = NULL;
            *pipeline = 1;
        }
    }
}

// Node by node, the attention's results scaled as a wrong kernel would.
static enum ggml_status compute_wrongly(ggml_backend_t cpu, struct ggml_cgraph * graph, float more) {
    for (int i = 0; i < ggml_graph_n_nodes(graph); ++i) {
        struct ggml_cgraph one = ggml_graph_view(graph, i, i + 1);
        enum ggml_status status = ggml_backend_graph_compute(cpu, &one);
        if (status != GGML_STATUS_SUCCESS) {
            return status;
        }
        struct ggml_tensor * node = ggml_graph_node(graph, i);
        if (node->op == GGML_OP_FLASH_ATTN_EXT && node->type == GGML_TYPE_F32) {
            float * values = node->data;
            for (int64_t j = 0; j < ggml_nelements(node); ++j) {
                values[j] *= j % node->ne[0] < node->ne[0] / 2 ? 1 + more : 1;
            }
        }
    }
    return GGML_STATUS_SUCCESS;
}

static enum ggml_status stream_compute(ggml_backend_t backend, struct ggml_cgraph * graph) {
    struct stream * stream = backend->context;
    if (stream->has_error) {
        ERROR("ggml_metal_graph_compute: backend is in error state from a previous command buffer failure - recreate the backend to recover\n");
        return GGML_STATUS_FAILED;
    }
    use_pipelines(graph);
    bool too_much = stream->dev->used > working_set() && !setting("PRESSURE", NULL);
    if (fails_now(graph) || too_much) {
        stream->failed = true;  // what it should have written holds what stood there before
        return GGML_STATUS_SUCCESS;
    }
    return number("WRONG", 0) ? compute_wrongly(stream->cpu, graph, (float) number("WRONG", 0))
                              : ggml_backend_graph_compute(stream->cpu, graph);
}

//
// device functions
//

static bool complains_of_compiler(void) {
    const char * text = setting("COMPILE", NULL);
    if (text) {
        ERROR("ggml_metal_library_init: error: Error Domain=MTLLibraryErrorDomain Code=3 \"%s\n", text);
        ERROR("\" UserInfo={NSLocalizedDescription=%s}\n", text);
    }
    return text != NULL;
}

static ggml_backend_t device_init(ggml_backend_dev_t dev, const char * params) {
    (void) params;
    INFO("ggml_metal_init: allocating\n");
    INFO("ggml_metal_init: found device: %s\n", device_of(dev)->chip);
    INFO("ggml_metal_init: picking default device: %s\n", device_of(dev)->chip);
    if (setting("COMPILE", NULL)) {
        WARN("ggml_metal_init: the device does not have a precompiled Metal library - this is unexpected\n");
        WARN("ggml_metal_init: will try to compile it on the fly\n");
        complains_of_compiler();
        ERROR("ggml_metal_init: error: failed to initialize the Metal library\n");
        ERROR("ggml_backend_metal_device_init: error: failed to allocate context\n");
        return NULL;
    }
    struct stream * stream = calloc(1, sizeof *stream);
    ggml_backend_t backend = calloc(1, sizeof *backend);
    static ggml_guid guid = { 0x73, 0x69, 0x6d, 0x2d, 0x6d, 0x65, 0x74, 0x61, 0x6c };
    stream->cpu = ggml_backend_dev_init(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU), NULL);
    stream->dev = device_of(dev);
    backend->guid = &guid;
    backend->device = dev;
    backend->context = stream;
    backend->iface.get_name = stream_name;
    backend->iface.free = stream_free;
    backend->iface.synchronize = stream_synchronize;
    backend->iface.graph_compute = stream_compute;
    INFO("ggml_metal_init: use fusion         = true\n");
    INFO("ggml_metal_init: use concurrency    = true\n");
    INFO("ggml_metal_init: use graph optimize = true\n");
    return backend;
}

static const char * device_name(ggml_backend_dev_t dev) { return device_of(dev)->name; }
static const char * device_description(ggml_backend_dev_t dev) { return device_of(dev)->chip; }

static void device_memory(ggml_backend_dev_t dev, size_t * free, size_t * total) {
    size_t used = device_of(dev)->used;
    *total = working_set();
    *free = *total - used;
    if (used > *total && !number("WRAPS", 0)) {
        *free = 0;
    }
}

static enum ggml_backend_dev_type device_type(ggml_backend_dev_t dev) {
    (void) dev;
    return GGML_BACKEND_DEVICE_TYPE_GPU;
}

static void device_props(ggml_backend_dev_t dev, struct ggml_backend_dev_props * props) {
    memset(props, 0, sizeof *props);
    props->name = device_name(dev);
    props->description = device_description(dev);
    props->type = device_type(dev);
    device_memory(dev, &props->memory_free, &props->memory_total);
    props->caps.async = true;
    props->caps.buffer_from_host_ptr = true;
}

static ggml_backend_buffer_type_t device_buffers(ggml_backend_dev_t dev) { return &device_of(dev)->buffers; }

static bool has_attention(const struct ggml_tensor * op) {
    char pair[96], head[24];
    snprintf(pair, sizeof pair, "%s/%s", ggml_type_name(op->src[1]->type), ggml_type_name(op->src[2]->type));
    snprintf(head, sizeof head, "%lld", (long long) op->src[0]->ne[0]);
    return listed(setting("FA", ""), pair) && listed(setting("HEADS", ""), head);
}

static bool device_supports(ggml_backend_dev_t dev, const struct ggml_tensor * op) {
    (void) dev;
    if (op->op == GGML_OP_FLASH_ATTN_EXT && !has_attention(op)) {
        return false;
    }
    if (op->op == GGML_OP_SET_ROWS && !listed(setting("SET_ROWS", ""), ggml_type_name(op->type))) {
        return false;
    }
    return ggml_backend_dev_supports_op(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU), op);
}

static bool device_supports_buffers(ggml_backend_dev_t dev, ggml_backend_buffer_type_t type) {
    return type == &device_of(dev)->buffers || type == &device_of(dev)->mapped;
}

// Weights on the CPU do not keep large products there.
static bool device_offloads(ggml_backend_dev_t dev, const struct ggml_tensor * op) {
    (void) dev;
    const char * least = getenv("GGML_OP_OFFLOAD_MIN_BATCH");
    return op->op == GGML_OP_MUL_MAT && op->ne[1] >= (least ? atoi(least) : 32);
}

static void announce(const struct device * dev) {
    const char * where = "ggml_metal_device_init";
    if (complains_of_compiler()) {
        ERROR("%s: error: failed to create library\n", where);
    }
    INFO("%s: GPU name:   %s (%s)\n", where, dev->name, dev->chip);
    INFO("%s: GPU family: MTLGPUFamilyApple10  (1010)\n", where);
    INFO("%s: GPU family: MTLGPUFamilyMetal4  (5002)\n", where);
    INFO("%s: simdgroup reduction   = true\n", where);
    INFO("%s: simdgroup matrix mul. = true\n", where);
    INFO("%s: has unified memory    = true\n", where);
    INFO("%s: has bfloat            = true\n", where);
    INFO("%s: use shared buffers    = true\n", where);
    INFO("%s: recommendedMaxWorkingSetSize  = %8.2f MB\n", where, working_set() / 1e6);
}

static void make_buffer_type(struct ggml_backend_buffer_type * type, struct device * dev) {
    type->iface.get_name = type_name;
    type->iface.alloc_buffer = type_alloc;
    type->iface.get_alignment = type_alignment;
    type->iface.is_host = type_is_host;
    type->device = &dev->base;
    type->context = dev;
}

static void make_device(int number) {
    struct device * dev = &devices[number];
    const char * chip = setting("CHIP", "Apple M5 Max");
    snprintf(dev->name, sizeof dev->name, "MTL%d", number);
    snprintf(dev->mapped_name, sizeof dev->mapped_name, "MTL%d_Mapped", number);
    if (device_count > 1) {
        snprintf(dev->chip, sizeof dev->chip, "%.60s (dev p0/v%d)", chip, number);
    } else {
        snprintf(dev->chip, sizeof dev->chip, "%.60s", chip);
    }
    make_buffer_type(&dev->buffers, dev);
    make_buffer_type(&dev->mapped, dev);
    struct ggml_backend_device_i * i = &dev->base.iface;
    i->get_name = device_name;
    i->get_description = device_description;
    i->get_memory = device_memory;
    i->get_type = device_type;
    i->get_props = device_props;
    i->init_backend = device_init;
    i->get_buffer_type = device_buffers;
    i->buffer_from_host_ptr = device_map;
    i->supports_op = device_supports;
    i->supports_buft = device_supports_buffers;
    i->offload_op = device_offloads;
    dev->base.reg = &registry;
    dev->base.context = dev;
    announce(dev);
}

//
// Accelerate: Macs list it between the GPU and the CPU, with no memory of its own
//

static struct ggml_backend_device blas;

static const char * blas_name(ggml_backend_dev_t dev) { (void) dev; return "BLAS"; }
static const char * blas_description(ggml_backend_dev_t dev) { (void) dev; return "Accelerate"; }
static void blas_memory(ggml_backend_dev_t dev, size_t * free, size_t * total) { (void) dev; *free = *total = 0; }
static enum ggml_backend_dev_type blas_type(ggml_backend_dev_t dev) { (void) dev; return GGML_BACKEND_DEVICE_TYPE_ACCEL; }
static ggml_backend_buffer_type_t blas_buffers(ggml_backend_dev_t dev) { (void) dev; return ggml_backend_cpu_buffer_type(); }
static bool blas_supports(ggml_backend_dev_t dev, const struct ggml_tensor * op) { (void) dev; (void) op; return false; }
static bool blas_supports_buffers(ggml_backend_dev_t dev, ggml_backend_buffer_type_t type) { (void) dev; return ggml_backend_buft_is_host(type); }

static void blas_props(ggml_backend_dev_t dev, struct ggml_backend_dev_props * props) {
    memset(props, 0, sizeof *props);
    props->name = blas_name(dev);
    props->description = blas_description(dev);
    props->type = blas_type(dev);
}

static const char * blas_stream_name(ggml_backend_t backend) { (void) backend; return "BLAS"; }
static void blas_free(ggml_backend_t backend) { free(backend); }
static enum ggml_status blas_compute(ggml_backend_t backend, struct ggml_cgraph * graph) {
    (void) backend;
    (void) graph;
    return GGML_STATUS_FAILED;
}

static ggml_backend_t blas_init(ggml_backend_dev_t dev, const char * params) {
    (void) params;
    ggml_backend_t backend = calloc(1, sizeof *backend);
    static ggml_guid guid = { 0x73, 0x69, 0x6d, 0x2d, 0x62, 0x6c, 0x61, 0x73 };
    backend->guid = &guid;
    backend->device = dev;
    backend->iface.get_name = blas_stream_name;
    backend->iface.free = blas_free;
    backend->iface.graph_compute = blas_compute;
    return backend;
}

static void make_blas(void) {
    struct ggml_backend_device_i * i = &blas.iface;
    i->get_name = blas_name;
    i->get_description = blas_description;
    i->get_memory = blas_memory;
    i->get_type = blas_type;
    i->get_props = blas_props;
    i->init_backend = blas_init;
    i->get_buffer_type = blas_buffers;
    i->supports_op = blas_supports;
    i->supports_buft = blas_supports_buffers;
    blas.reg = &registry;
}

//
// the registry
//

static int accelerators;

static const char * registry_name(ggml_backend_reg_t reg) { (void) reg; return "MTL"; }
static size_t registry_count(ggml_backend_reg_t reg) { (void) reg; return device_count + accelerators; }
static ggml_backend_dev_t registry_device(ggml_backend_reg_t reg, size_t number) {
    (void) reg;
    return number < (size_t) device_count ? &devices[number].base : &blas;
}
static void * registry_function(ggml_backend_reg_t reg, const char * name) { (void) reg; (void) name; return NULL; }

ggml_backend_reg_t ggml_backend_init(void) {
    if (device_count == 0) {
        const char * virtual = getenv("GGML_METAL_DEVICES");
        device_count = virtual ? atoi(virtual) : (int) number("DEVICES", 1);
        device_count = device_count < 1 ? 1 : device_count > MOST ? MOST : device_count;
        for (int n = 0; n < device_count; ++n) {
            make_device(n);
        }
        make_blas();
        accelerators = number("BLAS", 1) ? 1 : 0;
        registry.api_version = GGML_BACKEND_API_VERSION;
        registry.iface.get_name = registry_name;
        registry.iface.get_device_count = registry_count;
        registry.iface.get_device = registry_device;
        registry.iface.get_proc_address = registry_function;
    }
    return &registry;
}
