// What maps, programs and links have in common: a descriptor that can be pinned, opened from a pin, and closed.
#include "handle.h"
#include "kind.h"
#include "register.h"

#include <cerrno>
#include <cstdio>
#include <string>

Kind KindOf(int fd)
{
	char path[32], target[64];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	const ssize_t length = readlink(path, target, sizeof(target));
	const std::string name(target, length > 0 ? length : 0);
	if (name.find("bpf-map") != std::string::npos)
		return Kind::map;
	if (name.find("bpf-prog") != std::string::npos)
		return Kind::program;
	if (name.find("bpf_link") != std::string::npos || name.find("bpf-link") != std::string::npos)
		return Kind::link;
	return Kind::other;
}

static std::shared_ptr<const Descriptor> AnyDescriptor(const Napi::Value &value)
{
	if (IsHandle<Program>(value))
		return Held<Program>(value);
	if (IsHandle<Link>(value))
		return Held<Link>(value);
	return Held<Map>(value);
}

// openPin(path): {kind: "map" | "program" | "link", handle} or a negative errno; -EMEDIUMTYPE where the pin is of no such kind.
static Napi::Value OpenPin(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	const std::string path = String(info[0]);
	const int fd = bpf_obj_get(path.c_str());
	if (fd < 0)
		return Number(env, -errno);
	Record opened(env);
	switch (KindOf(fd)) {
	case Kind::map: {
		auto map = AdoptMap(fd);
		if (!map)
			return Number(env, -errno);
		opened.Set("kind", "map");
		opened.Set("handle", Wrap(env, map));
		return opened.Value();
	}
	case Kind::program:
		opened.Set("kind", "program");
		opened.Set("handle", Wrap(env, std::make_shared<Program>(fd)));
		return opened.Value();
	case Kind::link:
		opened.Set("kind", "link");
		opened.Set("handle", Wrap(env, std::make_shared<Link>(fd)));
		return opened.Value();
	case Kind::other:
		break;
	}
	close(fd);
	return Number(env, -EMEDIUMTYPE);
}

// pin(handle, path): 0 or a negative errno.
static Napi::Value Pin(const Napi::CallbackInfo &info)
{
	auto descriptor = AnyDescriptor(info[0]);
	if (!descriptor)
		return Undefined(info.Env());
	const std::string path = String(info[1]);
	return Number(info.Env(), bpf_obj_pin(descriptor->fd(), path.c_str()) ? -errno : 0);
}

// descriptor(handle): its number, which stays the handle's.
static Napi::Value Fd(const Napi::CallbackInfo &info)
{
	auto descriptor = AnyDescriptor(info[0]);
	return descriptor ? Number(info.Env(), descriptor->fd()) : Undefined(info.Env());
}

template <class T> static Napi::Value Close(const Napi::CallbackInfo &info)
{
	if (auto *box = Box<T>(info[0]))
		box->reset();
	return Undefined(info.Env());
}

void RegisterPin(Napi::Env env, Napi::Object exports)
{
	Register<OpenPin>(env, exports, "openPin");
	Register<Pin>(env, exports, "pin");
	Register<Fd>(env, exports, "descriptor");
	Register<Close<Map>>(env, exports, "closeMap");
	Register<Close<Program>>(env, exports, "closeProgram");
	Register<Close<Link>>(env, exports, "closeLink");
}
