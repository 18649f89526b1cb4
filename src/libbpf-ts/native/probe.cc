#include "handle.h"
#include "register.h"

#include <cstring>
#include <string>

#include <bpf/libbpf.h>

template <const char *(*name)(int)> static Napi::Value Names(const Napi::CallbackInfo &info)
{
	auto names = Napi::Array::New(info.Env());
	for (uint32_t i = 0; const char *text = name(static_cast<int>(i)); i++)
		names.Set(i, text);
	return names;
}

static const char *MapTypeName(int type)
{
	return libbpf_bpf_map_type_str(static_cast<bpf_map_type>(type));
}

static const char *ProgramTypeName(int type)
{
	return libbpf_bpf_prog_type_str(static_cast<bpf_prog_type>(type));
}

// probeProgramType(type), probeMapType(type), probeHelper(type, id): 1, 0 or a negative errno.
static Napi::Value ProbeProgramType(const Napi::CallbackInfo &info)
{
	return Number(info.Env(), libbpf_probe_bpf_prog_type(static_cast<bpf_prog_type>(Uint32(info[0])), nullptr));
}

static Napi::Value ProbeMapType(const Napi::CallbackInfo &info)
{
	return Number(info.Env(), libbpf_probe_bpf_map_type(static_cast<bpf_map_type>(Uint32(info[0])), nullptr));
}

static Napi::Value ProbeHelper(const Napi::CallbackInfo &info)
{
	return Number(info.Env(), libbpf_probe_bpf_helper(static_cast<bpf_prog_type>(Uint32(info[0])),
							  static_cast<bpf_func_id>(Uint32(info[1])), nullptr));
}

// helperNames(): the names of the helpers that this was compiled with, by id, without the prefix "bpf_".
static Napi::Value HelperNames(const Napi::CallbackInfo &info)
{
#define NAME(helper, ...) #helper
	static const char *const names[] = { __BPF_FUNC_MAPPER(NAME) };
#undef NAME
	auto result = Napi::Array::New(info.Env());
	uint32_t i = 0;
	for (const char *name : names)
		result.Set(i++, name);
	return result;
}

static Napi::Value Version(const Napi::CallbackInfo &info)
{
	return Napi::String::New(info.Env(), libbpf_version_string());
}

static Napi::Value PossibleCpus(const Napi::CallbackInfo &info)
{
	return Number(info.Env(), libbpf_num_possible_cpus());
}

// errorText(errno): the system's text, or libbpf's for its own codes, which start at 4000.
static Napi::Value ErrorText(const Napi::CallbackInfo &info)
{
	const uint32_t error = Uint32(info[0]);
	char text[128] = {};
	libbpf_strerror(static_cast<int>(error), text, sizeof(text));
	return Napi::String::New(info.Env(), text);
}

void RegisterProbe(Napi::Env env, Napi::Object exports)
{
	Register<Names<MapTypeName> >(env, exports, "mapTypeNames");
	Register<Names<ProgramTypeName> >(env, exports, "programTypeNames");
	Register<ProbeProgramType>(env, exports, "probeProgramType");
	Register<ProbeMapType>(env, exports, "probeMapType");
	Register<ProbeHelper>(env, exports, "probeHelper");
	Register<HelperNames>(env, exports, "helperNames");
	Register<Version>(env, exports, "libbpfVersion");
	Register<PossibleCpus>(env, exports, "possibleCpus");
	Register<ErrorText>(env, exports, "errorText");
}
