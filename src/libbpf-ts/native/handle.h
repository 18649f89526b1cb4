// What JavaScript holds: an External around a shared_ptr to one of the classes below, with a type tag of its own, so
// that a handle of another kind (or of another addon) is refused. Closing empties the shared_ptr; work that still runs
// on the thread pool has a copy, so a descriptor is never closed, and its number never given away, under running work.
#pragma once

#include <memory>
#include <vector>

#include <bpf/bpf.h>
#include <napi.h>
#include <unistd.h>

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

template <class T> Napi::External<std::shared_ptr<T>> Wrap(Napi::Env env, std::shared_ptr<T> held)
{
	using Box = std::shared_ptr<T>;
	auto external = Napi::External<Box>::New(env, new Box(std::move(held)), [](Napi::Env, Box *box) { delete box; });
	external.TypeTag(&T::tag);
	return external;
}

// The box itself, for closing. Null with a pending TypeError where the value is no handle of this kind.
template <class T> std::shared_ptr<T> *Box(const Napi::Value &value)
{
	if (value.IsExternal()) {
		auto external = value.As<Napi::External<std::shared_ptr<T>>>();
		if (external.CheckTypeTag(&T::tag))
			return external.Data();
	}
	Napi::TypeError::New(value.Env(), "libbpf-ts: not a handle of the kind that is needed here")
		.ThrowAsJavaScriptException();
	return nullptr;
}

// What an open handle holds. Null with a pending TypeError where it is none or closed.
template <class T> std::shared_ptr<T> Held(const Napi::Value &value)
{
	auto *box = Box<T>(value);
	if (!box)
		return nullptr;
	if (!*box)
		Napi::TypeError::New(value.Env(), "libbpf-ts: the handle is closed").ThrowAsJavaScriptException();
	return *box;
}

struct Bytes {
	uint8_t *data;
	size_t size;
};

// A Uint8Array's memory, valid until control returns to JavaScript. Anything else is {nullptr, 0}.
inline Bytes BytesOf(const Napi::Value &value)
{
	if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array)
		return { nullptr, 0 };
	auto array = value.As<Napi::Uint8Array>();
	return { array.Data(), array.ByteLength() };
}

inline Napi::Value Number(Napi::Env env, int64_t n)
{
	return Napi::Number::New(env, static_cast<double>(n));
}

inline uint32_t Uint32(const Napi::Value &value)
{
	return value.IsNumber() ? value.As<Napi::Number>().Uint32Value() : 0;
}

// The size checks here are the last line of defence; JavaScript has refused the value before, with a better message.
inline Napi::Value WrongSize(Napi::Env env)
{
	Napi::TypeError::New(env, "libbpf-ts: a buffer is not a Uint8Array of the size that the kernel copies")
		.ThrowAsJavaScriptException();
	return env.Undefined();
}

inline Napi::Uint8Array CopyOf(Napi::Env env, const void *data, size_t size)
{
	auto array = Napi::Uint8Array::New(env, size);
	if (size)
		memcpy(array.Data(), data, size);
	return array;
}

// Queries the kernel for the map's sizes and takes the descriptor over, also when that fails: then null, with errno set.
std::shared_ptr<Map> AdoptMap(int fd);
