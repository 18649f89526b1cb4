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
	if (value.IsExternal()) {
		auto external = value.As<Napi::External<void>>();
		if (external.CheckTypeTag(&Program::tag))
			return Held<Program>(value);
		if (external.CheckTypeTag(&Link::tag))
			return Held<Link>(value);
	}
	return Held<Map>(value);
}

// openPin(path): {kind: "map" | "program" | "link", handle} or a negative errno; -EMEDIUMTYPE where the pin is of no such kind.
static Napi::Value OpenPin(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	const std::string path = info[0].ToString();
	const int fd = bpf_obj_get(path.c_str());
	if (fd < 0)
		return Number(env, -errno);
	auto opened = Napi::Object::New(env);
	switch (KindOf(fd)) {
	case Kind::map: {
		auto map = AdoptMap(fd);
		if (!map)
			return Number(env, -errno);
		opened.Set("kind", "map");
		opened.Set("handle", Wrap(env, map));
		return opened;
	}
	case Kind::program:
		opened.Set("kind", "program");
		opened.Set("handle", Wrap(env, std::make_shared<Program>(fd)));
		return opened;
	case Kind::link:
		opened.Set("kind", "link");
		opened.Set("handle", Wrap(env, std::make_shared<Link>(fd)));
		return opened;
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
		return info.Env().Undefined();
	const std::string path = info[1].ToString();
	return Number(info.Env(), bpf_obj_pin(descriptor->fd(), path.c_str()) ? -errno : 0);
}

// descriptor(handle): its number, which stays the handle's.
static Napi::Value Fd(const Napi::CallbackInfo &info)
{
	auto descriptor = AnyDescriptor(info[0]);
	return descriptor ? Number(info.Env(), descriptor->fd()) : info.Env().Undefined();
}

template <class T> static Napi::Value Close(const Napi::CallbackInfo &info)
{
	if (auto *box = Box<T>(info[0]))
		box->reset();
	return info.Env().Undefined();
}

void RegisterPin(Napi::Env env, Napi::Object exports)
{
	Register<OpenPin>(env, exports, "openPin");
	Register<Pin>(env, exports, "pin");
	Register<Fd>(env, exports, "descriptor");
	Register<Close<Map> >(env, exports, "closeMap");
	Register<Close<Program> >(env, exports, "closeProgram");
	Register<Close<Link> >(env, exports, "closeLink");
}
