#include "handle.h"
#include "register.h"

#include <cerrno>
#include <net/if.h>
#include <string>

// interfaceIndex(name): the index in the calling thread's network namespace, or a negative errno.
static Napi::Value InterfaceIndex(const Napi::CallbackInfo &info)
{
	const std::string name = String(info[0]);
	const unsigned index = if_nametoindex(name.c_str());
	return Number(info.Env(), index ? static_cast<int64_t>(index) : -errno);
}

// interfaceName(index): its name, or a negative errno.
static Napi::Value InterfaceName(const Napi::CallbackInfo &info)
{
	char name[IF_NAMESIZE];
	if (!if_indextoname(Uint32(info[0]), name))
		return Number(info.Env(), -errno);
	return Text(info.Env(), name);
}

void RegisterInterface(Napi::Env env, Napi::Object exports)
{
	Register<InterfaceIndex>(env, exports, "interfaceIndex");
	Register<InterfaceName>(env, exports, "interfaceName");
}
