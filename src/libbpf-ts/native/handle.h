// What JavaScript holds: an External around a shared_ptr to one of the classes below, with a type tag of its own, so
// that a handle of another kind (or of another addon) is refused. Closing empties the shared_ptr; work that still runs
// on the thread pool has a copy, so a descriptor is never closed, and its number never given away, under running work.
#pragma once

#include <memory>
#include <vector>

#include <bpf/bpf.h>
#include <napi.h>
#include <unistd.h>

#include "value.h"

class Descriptor
{
      public:
	explicit Descriptor(int fd) : fd_(fd)
	{
	}
	~Descriptor()
	{
		close(fd_);
	}
	Descriptor(const Descriptor &) = delete;
	Descriptor &operator=(const Descriptor &) = delete;
	int fd() const
	{
		return fd_;
	}

      private:
	const int fd_;
};

struct Map : Descriptor {
	static const napi_type_tag tag;
	Map(int fd, const bpf_map_info &info);
	const uint32_t type;
	const uint32_t key_size;
	const uint32_t value_size;
	const uint32_t max_entries;
	const uint32_t flags;
	// Bytes that the kernel copies for one element: for per-CPU maps one value a possible CPU, each at an 8-byte stride.
	const size_t transfer_size;
};

struct Program : Descriptor {
	static const napi_type_tag tag;
	using Descriptor::Descriptor;
};

struct Link : Descriptor {
	static const napi_type_tag tag;
	using Descriptor::Descriptor;
};

template <class T> Napi::Value Wrap(Napi::Env env, std::shared_ptr<T> held)
{
	auto *box = new std::shared_ptr<T>(std::move(held));
	const auto finalize = [](napi_env, void *data, void *) { delete static_cast<std::shared_ptr<T> *>(data); };
	napi_value external = nullptr;
	if (napi_create_external(env, box, finalize, nullptr, &external) != napi_ok) {
		delete box;
		return Undefined(env);
	}
	napi_type_tag_object(env, external, &T::tag);
	return Napi::Value(env, external);
}

template <class T> bool IsHandle(const Napi::Value &value)
{
	napi_valuetype type;
	bool tagged = false;
	return napi_typeof(value.Env(), value, &type) == napi_ok && type == napi_external &&
	       napi_check_object_type_tag(value.Env(), value, &T::tag, &tagged) == napi_ok && tagged;
}

// The box itself, for closing. Null with a pending TypeError where the value is no handle of this kind.
template <class T> std::shared_ptr<T> *Box(const Napi::Value &value)
{
	void *box = nullptr;
	if (IsHandle<T>(value) && napi_get_value_external(value.Env(), value, &box) == napi_ok)
		return static_cast<std::shared_ptr<T> *>(box);
	Refuse(value.Env(), "libbpf-ts: not a handle of the kind that is needed here");
	return nullptr;
}

// What an open handle holds. Null with a pending TypeError where it is none or closed.
template <class T> std::shared_ptr<T> Held(const Napi::Value &value)
{
	auto *box = Box<T>(value);
	if (!box)
		return nullptr;
	if (!*box)
		Refuse(value.Env(), "libbpf-ts: the handle is closed");
	return *box;
}

// The size checks here are the last line of defence; JavaScript has refused the value before, with a better message.
inline Napi::Value WrongSize(napi_env env)
{
	return Refuse(env, "libbpf-ts: a buffer is not a Uint8Array of the size that the kernel copies");
}

// Queries the kernel for the map's sizes and takes the descriptor over, also when that fails: then null, with errno set.
std::shared_ptr<Map> AdoptMap(int fd);
