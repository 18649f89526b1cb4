// An object between opening and loading. Loading consumes it: what comes out are descriptors of maps and programs, duplicated,
// so that libbpf's own object can be closed at once and has no second owner to agree with.
#include "handle.h"
#include "kind.h"
#include "log.h"
#include "register.h"
#include "work.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <string>

#include <bpf/btf.h>
#include <bpf/libbpf.h>

namespace
{

struct Object {
	static const napi_type_tag tag;

	explicit Object(bpf_object *object) : object(object)
	{
		bpf_map *map;
		bpf_object__for_each_map(map, object) maps.push_back(map);
		bpf_program *program;
		bpf_object__for_each_program(program, object) programs.push_back(program);
	}
	~Object()
	{
		bpf_object__close(object);
	}
	Object(const Object &) = delete;
	Object &operator=(const Object &) = delete;

	bpf_object *const object;
	std::vector<bpf_map *> maps;
	std::vector<bpf_program *> programs;
	// libbpf borrows the descriptor of an inner template; this keeps it open.
	std::vector<std::shared_ptr<Map>> templates;
};

const napi_type_tag Object::tag = { 0x6c1bbf5f6f626a00, 0x7d3a1c88f2b54d04 };

Record Failure(Napi::Env env, int error, const std::string &log)
{
	return Record(env).Set("errno", error).Set("log", log);
}

// openObject(bytes, name, pinRoot | undefined): a handle, or {errno, log}.
Napi::Value Open(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	const Bytes bytes = BytesOf(info[0]);
	// ELF structures are read in place, and a Uint8Array may begin anywhere.
	std::vector<uint64_t> aligned((bytes.size + 7) / 8);
	if (bytes.size)
		memcpy(aligned.data(), bytes.data, bytes.size);
	const std::string name = String(info[1]);
	const std::string pin_root = String(info[2]);
	bpf_object_open_opts options = {};
	options.sz = sizeof(options);
	options.object_name = name.c_str();
	options.pin_root_path = pin_root.empty() ? nullptr : pin_root.c_str();
	Log log;
	bpf_object *object = bpf_object__open_mem(aligned.data(), bytes.size, &options);
	if (!object)
		return Failure(env, errno, log.text).Value();
	return Wrap(env, std::make_shared<Object>(object));
}

Napi::Value Close(const Napi::CallbackInfo &info)
{
	if (auto *box = Box<Object>(info[0]))
		box->reset();
	return Undefined(info.Env());
}

// objectBtf(object): raw BTF, or undefined where the object has none.
Napi::Value RawBtf(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	auto object = Held<Object>(info[0]);
	if (!object)
		return Undefined(env);
	btf *btf = bpf_object__btf(object->object);
	uint32_t size = 0;
	const void *raw = btf ? btf__raw_data(btf, &size) : nullptr;
	if (!raw)
		return Undefined(env);
	return CopyOf(env, raw, size);
}

Napi::Value DescribeMap(Napi::Env env, const bpf_map *map)
{
	Record object(env);
	object.Set("name", bpf_map__name(map));
	object.Set("type", static_cast<uint32_t>(bpf_map__type(map)));
	object.Set("keySize", bpf_map__key_size(map));
	object.Set("valueSize", bpf_map__value_size(map));
	object.Set("maxEntries", bpf_map__max_entries(map));
	object.Set("flags", bpf_map__map_flags(map));
	object.SetBoolean("internal", bpf_map__is_internal(map));
	object.Set("keyTypeId", bpf_map__btf_key_type_id(map));
	object.Set("valueTypeId", bpf_map__btf_value_type_id(map));
	if (const char *path = bpf_map__pin_path(map))
		object.Set("pinPath", path);
	return object.Value();
}

// objectMaps(object): descriptions, in the order that the other functions' indexes count in.
Napi::Value Maps(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	auto object = Held<Object>(info[0]);
	if (!object)
		return Undefined(env);
	List maps(env);
	for (uint32_t i = 0; i < object->maps.size(); i++)
		maps.Set(i, DescribeMap(env, object->maps[i]));
	return maps.Value();
}

// objectPrograms(object): descriptions, in the order that the other functions' indexes count in.
Napi::Value Programs(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	auto object = Held<Object>(info[0]);
	if (!object)
		return Undefined(env);
	List programs(env);
	for (uint32_t i = 0; i < object->programs.size(); i++) {
		const bpf_program *program = object->programs[i];
		Record description(env);
		description.Set("name", bpf_program__name(program));
		description.Set("section", bpf_program__section_name(program));
		description.Set("type", static_cast<uint32_t>(bpf_program__type(program)));
		description.SetBoolean("autoload", bpf_program__autoload(program));
		programs.Set(i, description.Value());
	}
	return programs.Value();
}

// findSection(object, name): the index of the internal map that holds the section, or -1.
Napi::Value FindSection(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	auto object = Held<Object>(info[0]);
	if (!object)
		return Undefined(env);
	const std::string name = String(info[1]);
	const bpf_map *found = bpf_object__find_map_by_name(object->object, name.c_str());
	for (size_t i = 0; found && i < object->maps.size(); i++) {
		if (object->maps[i] == found)
			return Number(env, i);
	}
	return Number(env, -1);
}

// The map or program that the first two arguments name; null with a pending error.
template <class T>
T *At(const Napi::CallbackInfo &info, const std::shared_ptr<Object> &object, const std::vector<T *> Object::*list)
{
	if (!object)
		return nullptr;
	const uint32_t index = Uint32(info[1]);
	if (index < ((*object).*list).size())
		return ((*object).*list)[index];
	napi_throw_range_error(info.Env(), nullptr, "libbpf-ts: no such index");
	return nullptr;
}

// setMaxEntries(object, map, count), setAutocreate(object, map, on), setAutoload(object, program, on): 0 or a negative errno.
Napi::Value SetMaxEntries(const Napi::CallbackInfo &info)
{
	auto object = Held<Object>(info[0]);
	bpf_map *map = At(info, object, &Object::maps);
	if (!map)
		return Undefined(info.Env());
	return Number(info.Env(), bpf_map__set_max_entries(map, Uint32(info[2])));
}

Napi::Value SetAutocreate(const Napi::CallbackInfo &info)
{
	auto object = Held<Object>(info[0]);
	bpf_map *map = At(info, object, &Object::maps);
	if (!map)
		return Undefined(info.Env());
	return Number(info.Env(), bpf_map__set_autocreate(map, Truth(info[2])));
}

Napi::Value SetAutoload(const Napi::CallbackInfo &info)
{
	auto object = Held<Object>(info[0]);
	bpf_program *program = At(info, object, &Object::programs);
	if (!program)
		return Undefined(info.Env());
	return Number(info.Env(), bpf_program__set_autoload(program, Truth(info[2])));
}

// maxEntries(object, map): as it stands; libbpf rounds a ring buffer's size up.
Napi::Value MaxEntries(const Napi::CallbackInfo &info)
{
	auto object = Held<Object>(info[0]);
	bpf_map *map = At(info, object, &Object::maps);
	if (!map)
		return Undefined(info.Env());
	return Number(info.Env(), bpf_map__max_entries(map));
}

// reuse(object, map, handle): 0 or a negative errno.
Napi::Value Reuse(const Napi::CallbackInfo &info)
{
	auto object = Held<Object>(info[0]);
	bpf_map *map = At(info, object, &Object::maps);
	auto existing = map ? Held<Map>(info[2]) : nullptr;
	if (!existing)
		return Undefined(info.Env());
	return Number(info.Env(), bpf_map__reuse_fd(map, existing->fd()));
}

// setInnerTemplate(object, map, handle): 0 or a negative errno.
Napi::Value SetInnerTemplate(const Napi::CallbackInfo &info)
{
	auto object = Held<Object>(info[0]);
	bpf_map *map = At(info, object, &Object::maps);
	auto inner = map ? Held<Map>(info[2]) : nullptr;
	if (!inner)
		return Undefined(info.Env());
	Log log;
	const int error = bpf_map__set_inner_map_fd(map, inner->fd());
	if (!error)
		object->templates.push_back(inner);
	return Number(info.Env(), error);
}

// initialValue(object, map): a copy, or undefined where the map has none.
Napi::Value InitialValue(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	auto object = Held<Object>(info[0]);
	bpf_map *map = At(info, object, &Object::maps);
	if (!map)
		return Undefined(env);
	size_t size = 0;
	const void *value = bpf_map__initial_value(map, &size);
	if (!value)
		return Undefined(env);
	return CopyOf(env, value, size);
}

// setInitialValue(object, map, bytes): 0 or a negative errno.
Napi::Value SetInitialValue(const Napi::CallbackInfo &info)
{
	auto object = Held<Object>(info[0]);
	bpf_map *map = At(info, object, &Object::maps);
	if (!map)
		return Undefined(info.Env());
	const Bytes bytes = BytesOf(info[2]);
	// Checks the size itself.
	return Number(info.Env(), bpf_map__set_initial_value(map, bytes.data, bytes.size));
}

struct Load {
	std::shared_ptr<Object> object;
	std::vector<std::string> pins; // by map; empty: not pinned
	std::vector<bool> reused; // by map; set by reuse()

	int error = 0;
	std::string log;
	const char *stage = "load";
	size_t failed = 0; // index of the map, where a stage is about one
	std::string parameter; // of the pinned map that does not fit
	uint32_t wanted = 0, found = 0;
	std::vector<std::shared_ptr<Map>> maps;
	std::vector<std::shared_ptr<Program>> programs;

	void Run()
	{
		Log captured;
		std::vector<size_t> pin_later;
		std::vector<size_t> pinned;
		if (ReusePins(pin_later)) {
			error = -bpf_object__load(object->object);
			if (!error && Pin(pin_later, pinned))
				TakeDescriptors();
			if (error) {
				for (size_t i : pinned)
					unlink(pins[i].c_str());
			}
		}
		log = std::move(captured.text);
		object.reset();
	}

	bool Fail(const char *at, size_t map, int number)
	{
		stage = at;
		failed = map;
		error = number;
		return false;
	}

	bool Differs(const char *name, uint32_t declared, uint32_t pinned)
	{
		if (declared == pinned)
			return false;
		parameter = name;
		wanted = declared;
		found = pinned;
		return true;
	}

	// libbpf 1.1 would do this too, but refuses to reuse any devmap: the kernel adds BPF_F_RDONLY_PROG to its flags.
	bool ReusePins(std::vector<size_t> &pin_later)
	{
		for (size_t i = 0; i < pins.size(); i++) {
			bpf_map *map = object->maps[i];
			if (pins[i].empty() || !bpf_map__autocreate(map))
				continue;
			const int fd = reused[i] ? -1 : bpf_obj_get(pins[i].c_str());
			if (fd < 0) {
				if (!reused[i] && errno != ENOENT)
					return Fail("pin", i, errno);
				pin_later.push_back(i);
				continue;
			}
			Descriptor descriptor(fd);
			bpf_map_info info = {};
			uint32_t length = sizeof(info);
			if (KindOf(fd) != Kind::map)
				return Fail("kind", i, EMEDIUMTYPE);
			if (bpf_obj_get_info_by_fd(fd, &info, &length))
				return Fail("pin", i, errno);
			const bool device = info.type == BPF_MAP_TYPE_DEVMAP || info.type == BPF_MAP_TYPE_DEVMAP_HASH;
			const uint32_t added_by_kernel = device ? BPF_F_RDONLY_PROG : 0;
			const bool sized =
				bpf_map__type(map) != BPF_MAP_TYPE_PERF_EVENT_ARRAY || bpf_map__max_entries(map);
			if (Differs("type", bpf_map__type(map), info.type) ||
			    Differs("key_size", bpf_map__key_size(map), info.key_size) ||
			    Differs("value_size", bpf_map__value_size(map), info.value_size) ||
			    (sized && Differs("max_entries", bpf_map__max_entries(map), info.max_entries)) ||
			    Differs("map_flags", bpf_map__map_flags(map), info.map_flags & ~added_by_kernel) ||
			    Differs("map_extra", bpf_map__map_extra(map), info.map_extra))
				return Fail("fit", i, EINVAL);
			if (const int failure = bpf_map__reuse_fd(map, fd))
				return Fail("pin", i, -failure);
		}
		return true;
	}

	bool Pin(const std::vector<size_t> &pin_later, std::vector<size_t> &pinned)
	{
		for (size_t i : pin_later) {
			if (bpf_obj_pin(bpf_map__fd(object->maps[i]), pins[i].c_str()))
				return Fail("pin", i, errno);
			pinned.push_back(i);
		}
		return true;
	}

	void TakeDescriptors()
	{
		for (bpf_map *map : object->maps) {
			const int fd = bpf_map__fd(map);
			std::shared_ptr<Map> taken;
			if (fd >= 0) {
				const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
				taken = copy < 0 ? nullptr : AdoptMap(copy);
				if (!taken) {
					Fail("load", 0, errno);
					return;
				}
			}
			maps.push_back(taken);
		}
		for (bpf_program *program : object->programs) {
			const int fd = bpf_program__fd(program);
			std::shared_ptr<Program> taken;
			if (fd >= 0) {
				const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
				if (copy < 0) {
					Fail("load", 0, errno);
					return;
				}
				taken = std::make_shared<Program>(copy);
			}
			programs.push_back(taken);
		}
	}

	Napi::Value Result(Napi::Env env) const
	{
		if (error) {
			Record failure = Failure(env, error, log);
			failure.Set("stage", stage);
			failure.Set("map", static_cast<uint32_t>(failed));
			failure.Set("parameter", parameter);
			failure.Set("wanted", wanted);
			failure.Set("found", found);
			return failure.Value();
		}
		Record loaded(env);
		List map_handles(env);
		for (uint32_t i = 0; i < maps.size(); i++) {
			if (maps[i])
				map_handles.Set(i, Wrap(env, maps[i]));
		}
		List program_handles(env);
		for (uint32_t i = 0; i < programs.size(); i++) {
			if (programs[i])
				program_handles.Set(i, Wrap(env, programs[i]));
		}
		loaded.Set("maps", map_handles.Value());
		loaded.Set("programs", program_handles.Value());
		return loaded.Value();
	}
};

// loadObject(object, pins, reused): a promise of {maps, programs}, arrays of handles with holes for what was not to be made, or
// of {errno, log, stage, map, ...}. Empties the handle: the object is consumed, whatever comes of it.
Napi::Value LoadObject(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	auto object = Held<Object>(info[0]);
	if (!object)
		return Undefined(env);
	auto load = std::make_shared<Load>();
	for (uint32_t i = 0; i < object->maps.size(); i++) {
		load->pins.push_back(String(Element(info[1], i)));
		load->reused.push_back(Truth(Element(info[2], i)));
		// What is pinned is decided here alone.
		bpf_map__set_pin_path(object->maps[i], nullptr);
	}
	load->object = std::move(object);
	Box<Object>(info[0])->reset();
	return Work::Start(env, [load] { load->Run(); }, [load](Napi::Env env) { return load->Result(env); });
}

} // namespace

void RegisterObject(Napi::Env env, Napi::Object exports)
{
	Register<Open>(env, exports, "openObject");
	Register<Close>(env, exports, "closeObject");
	Register<RawBtf>(env, exports, "objectBtf");
	Register<Maps>(env, exports, "objectMaps");
	Register<Programs>(env, exports, "objectPrograms");
	Register<FindSection>(env, exports, "findSection");
	Register<SetMaxEntries>(env, exports, "setMaxEntries");
	Register<MaxEntries>(env, exports, "maxEntries");
	Register<SetAutocreate>(env, exports, "setAutocreate");
	Register<SetAutoload>(env, exports, "setAutoload");
	Register<Reuse>(env, exports, "reuse");
	Register<SetInnerTemplate>(env, exports, "setInnerTemplate");
	Register<InitialValue>(env, exports, "initialValue");
	Register<SetInitialValue>(env, exports, "setInitialValue");
	Register<LoadObject>(env, exports, "loadObject");
}
