#include "handle.h"
#include "register.h"
#include "work.h"

#include <cerrno>
#include <string>

#include <bpf/libbpf.h>
#include <sys/mman.h>

const napi_type_tag Map::tag = { 0x6c1bbf5f6d617000, 0x9a51d7c2e0b34f01 };

static size_t Stride(size_t value_size)
{
	return (value_size + 7) & ~size_t(7);
}

// As the kernel's bpf_map_value_size (kernel/bpf/syscall.c).
static size_t TransferSize(const bpf_map_info &info)
{
	switch (info.type) {
	case BPF_MAP_TYPE_PERCPU_HASH:
	case BPF_MAP_TYPE_LRU_PERCPU_HASH:
	case BPF_MAP_TYPE_PERCPU_ARRAY:
	case BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE: {
		const int cpus = libbpf_num_possible_cpus();
		// More than any machine has, rather than too little, where the file that tells cannot be read.
		return Stride(info.value_size) * (cpus > 0 ? cpus : 8192);
	}
	case BPF_MAP_TYPE_PROG_ARRAY:
	case BPF_MAP_TYPE_PERF_EVENT_ARRAY:
	case BPF_MAP_TYPE_CGROUP_ARRAY:
	case BPF_MAP_TYPE_ARRAY_OF_MAPS:
	case BPF_MAP_TYPE_HASH_OF_MAPS:
		return sizeof(uint32_t);
	default:
		return info.value_size;
	}
}

Map::Map(int fd, const bpf_map_info &info)
    : Descriptor(fd), type(info.type), key_size(info.key_size), value_size(info.value_size),
      max_entries(info.max_entries), flags(info.map_flags), transfer_size(TransferSize(info))
{
}

std::shared_ptr<Map> AdoptMap(int fd)
{
	bpf_map_info info = {};
	uint32_t length = sizeof(info);
	if (bpf_obj_get_info_by_fd(fd, &info, &length)) {
		const int error = errno;
		close(fd);
		errno = error;
		return nullptr;
	}
	return std::make_shared<Map>(fd, info);
}

// createMap(type, name, keySize, valueSize, maxEntries, flags, inner | undefined): a handle or a negative errno.
static Napi::Value Create(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	bpf_map_create_opts options = {};
	options.sz = sizeof(options);
	options.map_flags = Uint32(info[5]);
	std::shared_ptr<Map> inner;
	if (!info[6].IsUndefined()) {
		inner = Held<Map>(info[6]);
		if (!inner)
			return Undefined(env);
		options.inner_map_fd = inner->fd();
	}
	const std::string name = String(info[1]);
	const int fd = bpf_map_create(static_cast<bpf_map_type>(Uint32(info[0])), name.c_str(), Uint32(info[2]),
				      Uint32(info[3]), Uint32(info[4]), &options);
	if (fd < 0)
		return Number(env, -errno);
	auto map = AdoptMap(fd);
	return map ? Wrap(env, map) : Number(env, -errno);
}

static Napi::Value Info(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	auto map = Held<Map>(info[0]);
	if (!map)
		return Undefined(env);
	bpf_map_info kernel = {};
	uint32_t length = sizeof(kernel);
	if (bpf_obj_get_info_by_fd(map->fd(), &kernel, &length))
		return Number(env, -errno);
	Record object(env);
	object.Set("type", kernel.type);
	object.Set("id", kernel.id);
	object.Set("keySize", kernel.key_size);
	object.Set("valueSize", kernel.value_size);
	object.Set("maxEntries", kernel.max_entries);
	object.Set("flags", kernel.map_flags);
	object.Set("name", kernel.name);
	object.Set("btfId", kernel.btf_id);
	object.Set("keyTypeId", kernel.btf_key_type_id);
	object.Set("valueTypeId", kernel.btf_value_type_id);
	object.Set("transferSize", static_cast<uint32_t>(map->transfer_size));
	return object.Value();
}

// Maps without keys (queues, stacks, bloom filters) want a null pointer.
static const uint8_t *KeyPointer(const Bytes &key)
{
	return key.size ? key.data : nullptr;
}

// lookup(map, key, value): 0, with the value written, or a negative errno.
static Napi::Value Lookup(const Napi::CallbackInfo &info)
{
	auto map = Held<Map>(info[0]);
	if (!map)
		return Undefined(info.Env());
	const Bytes key = BytesOf(info[1]), value = BytesOf(info[2]);
	if (key.size != map->key_size || value.size != map->transfer_size)
		return WrongSize(info.Env());
	return Number(info.Env(), bpf_map_lookup_elem(map->fd(), KeyPointer(key), value.data) ? -errno : 0);
}

// update(map, key, value, flags): 0 or a negative errno.
static Napi::Value Update(const Napi::CallbackInfo &info)
{
	auto map = Held<Map>(info[0]);
	if (!map)
		return Undefined(info.Env());
	const Bytes key = BytesOf(info[1]), value = BytesOf(info[2]);
	if (key.size != map->key_size || value.size != map->transfer_size)
		return WrongSize(info.Env());
	return Number(info.Env(),
		      bpf_map_update_elem(map->fd(), KeyPointer(key), value.data, Uint32(info[3])) ? -errno : 0);
}

// remove(map, key): 0 or a negative errno.
static Napi::Value Remove(const Napi::CallbackInfo &info)
{
	auto map = Held<Map>(info[0]);
	if (!map)
		return Undefined(info.Env());
	const Bytes key = BytesOf(info[1]);
	if (key.size != map->key_size)
		return WrongSize(info.Env());
	return Number(info.Env(), bpf_map_delete_elem(map->fd(), KeyPointer(key)) ? -errno : 0);
}

// nextKey(map, key | undefined, next): 0, with the next key written, or a negative errno; -ENOENT at the end.
static Napi::Value NextKey(const Napi::CallbackInfo &info)
{
	auto map = Held<Map>(info[0]);
	if (!map)
		return Undefined(info.Env());
	const bool first = info[1].IsUndefined();
	const Bytes key = BytesOf(info[1]), next = BytesOf(info[2]);
	if ((!first && key.size != map->key_size) || next.size != map->key_size || map->key_size == 0)
		return WrongSize(info.Env());
	return Number(info.Env(), bpf_map_get_next_key(map->fd(), first ? nullptr : key.data, next.data) ? -errno : 0);
}

static bool Holds(const Bytes &bytes, size_t size, uint32_t count)
{
	return size == 0 || bytes.size / size >= count;
}

// What the batch calls answer: [0 or a negative errno, elements done].
static Napi::Value Batch(Napi::Env env, int failed, uint32_t count)
{
	const int error = failed ? -errno : 0;
	List result(env);
	result.Set(0u, Number(env, error));
	result.Set(1u, Number(env, count));
	return result.Value();
}

// lookupBatch(map, position | undefined, next, keys, values, count)
static Napi::Value LookupBatch(const Napi::CallbackInfo &info)
{
	auto map = Held<Map>(info[0]);
	if (!map)
		return Undefined(info.Env());
	const bool first = info[1].IsUndefined();
	const Bytes position = BytesOf(info[1]), next = BytesOf(info[2]), keys = BytesOf(info[3]),
		    values = BytesOf(info[4]);
	uint32_t count = Uint32(info[5]);
	// A hash map's position is a u32, that of other maps a key.
	const size_t position_size = map->key_size < sizeof(uint32_t) ? sizeof(uint32_t) : map->key_size;
	if ((!first && position.size != position_size) || next.size != position_size ||
	    !Holds(keys, map->key_size, count) || !Holds(values, map->transfer_size, count))
		return WrongSize(info.Env());
	bpf_map_batch_opts options = {};
	options.sz = sizeof(options);
	const int failed = bpf_map_lookup_batch(map->fd(), first ? nullptr : position.data, next.data, keys.data,
						values.data, &count, &options);
	return Batch(info.Env(), failed, count);
}

// updateBatch(map, keys, values, count)
static Napi::Value UpdateBatch(const Napi::CallbackInfo &info)
{
	auto map = Held<Map>(info[0]);
	if (!map)
		return Undefined(info.Env());
	const Bytes keys = BytesOf(info[1]), values = BytesOf(info[2]);
	uint32_t count = Uint32(info[3]);
	if (!Holds(keys, map->key_size, count) || !Holds(values, map->transfer_size, count))
		return WrongSize(info.Env());
	bpf_map_batch_opts options = {};
	options.sz = sizeof(options);
	const int failed = bpf_map_update_batch(map->fd(), keys.data, values.data, &count, &options);
	return Batch(info.Env(), failed, count);
}

// removeBatch(map, keys, count)
static Napi::Value RemoveBatch(const Napi::CallbackInfo &info)
{
	auto map = Held<Map>(info[0]);
	if (!map)
		return Undefined(info.Env());
	const Bytes keys = BytesOf(info[1]);
	uint32_t count = Uint32(info[2]);
	if (!Holds(keys, map->key_size, count))
		return WrongSize(info.Env());
	bpf_map_batch_opts options = {};
	options.sz = sizeof(options);
	const int failed = bpf_map_delete_batch(map->fd(), keys.data, &count, &options);
	return Batch(info.Env(), failed, count);
}

// setInner(outer, key, inner): a promise of 0 or a negative errno. The kernel waits for an RCU grace period.
static Napi::Value SetInner(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	auto outer = Held<Map>(info[0]);
	auto inner = outer ? Held<Map>(info[2]) : nullptr;
	if (!inner)
		return Undefined(env);
	const Bytes key = BytesOf(info[1]);
	if (key.size != outer->key_size || outer->transfer_size != sizeof(uint32_t))
		return WrongSize(env);
	auto result = std::make_shared<int>(0);
	return Work::Start(
		env,
		[outer, inner, result, copy = std::vector<uint8_t>(key.data, key.data + key.size)] {
			const uint32_t fd = inner->fd();
			*result = bpf_map_update_elem(outer->fd(), copy.data(), &fd, BPF_ANY) ? -errno : 0;
		},
		[result](Napi::Env env) { return Number(env, *result); });
}

// freeze(map): 0 or a negative errno.
static Napi::Value Freeze(const Napi::CallbackInfo &info)
{
	auto map = Held<Map>(info[0]);
	if (!map)
		return Undefined(info.Env());
	return Number(info.Env(), bpf_map_freeze(map->fd()) ? -errno : 0);
}

// mmap(map, writable): an ArrayBuffer of the map's own memory, or a negative errno. The mapping ends when the ArrayBuffer does,
// by detach() or by the garbage collector.
static Napi::Value Mmap(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	auto map = Held<Map>(info[0]);
	if (!map)
		return Undefined(env);
	if (map->type != BPF_MAP_TYPE_ARRAY || !(map->flags & BPF_F_MMAPABLE))
		return Number(env, -EINVAL);
	const size_t size = Stride(map->value_size) * map->max_entries;
	const int protection = PROT_READ | (Truth(info[1]) ? PROT_WRITE : 0);
	void *memory = mmap(nullptr, size, protection, MAP_SHARED, map->fd(), 0);
	if (memory == MAP_FAILED)
		return Number(env, -errno);
	napi_value buffer;
	const napi_status status = napi_create_external_arraybuffer(
		env, memory, size,
		[](napi_env, void *data, void *hint) { munmap(data, reinterpret_cast<uintptr_t>(hint)); },
		reinterpret_cast<void *>(size), &buffer);
	if (status != napi_ok) {
		munmap(memory, size);
		return Number(env, -ENOTSUP);
	}
	return Napi::Value(env, buffer);
}

// detach(buffer): takes the memory away from every view of the ArrayBuffer; its finalizer then unmaps it.
static Napi::Value Detach(const Napi::CallbackInfo &info)
{
	napi_detach_arraybuffer(info.Env(), info[0]);
	return Undefined(info.Env());
}

void RegisterMap(Napi::Env env, Napi::Object exports)
{
	Register<Create>(env, exports, "createMap");
	Register<Info>(env, exports, "mapInfo");
	Register<Lookup>(env, exports, "lookup");
	Register<Update>(env, exports, "update");
	Register<Remove>(env, exports, "remove");
	Register<NextKey>(env, exports, "nextKey");
	Register<LookupBatch>(env, exports, "lookupBatch");
	Register<UpdateBatch>(env, exports, "updateBatch");
	Register<RemoveBatch>(env, exports, "removeBatch");
	Register<SetInner>(env, exports, "setInner");
	Register<Freeze>(env, exports, "freeze");
	Register<Mmap>(env, exports, "mmap");
	Register<Detach>(env, exports, "detach");
}
