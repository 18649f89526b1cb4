#include "handle.h"
#include "register.h"

#include <cstring>
#include <string>

#include <bpf/libbpf.h>

template <const char *(*name)(int)> static Napi::Value Names(const Napi::CallbackInfo &info)
{
	List names(info.Env());
	for (uint32_t i = 0; const char *text = name(static_cast<int>(i)); i++)
		names.Set(i, Text(info.Env(), text));
	return names.Value();
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

// Newer kernels refuse a helper in words that libbpf 1.1 takes for another reason, and so for a yes: where it looks for "unknown
// func", they say "program of this type cannot use helper". So ask once more and look for that.
static bool RefusedInNewWords(bpf_prog_type type, uint32_t helper)
{
	bpf_insn instructions[2] = {};
	instructions[0].code = BPF_JMP | BPF_CALL;
	instructions[0].imm = static_cast<int32_t>(helper);
	instructions[1].code = BPF_JMP | BPF_EXIT;
	char log[4096] = {};
	bpf_prog_load_opts options = {};
	options.sz = sizeof(options);
	options.log_buf = log;
	options.log_size = sizeof(log);
	options.log_level = 1;
	const int fd = bpf_prog_load(type, nullptr, "GPL", instructions, 2, &options);
	if (fd >= 0) {
		close(fd);
		return false;
	}
	return strstr(log, "cannot use helper");
}

static Napi::Value ProbeHelper(const Napi::CallbackInfo &info)
{
	const auto type = static_cast<bpf_prog_type>(Uint32(info[0]));
	const uint32_t helper = Uint32(info[1]);
	const int answer = libbpf_probe_bpf_helper(type, static_cast<bpf_func_id>(helper), nullptr);
	return Number(info.Env(), answer == 1 && RefusedInNewWords(type, helper) ? 0 : answer);
}

// helperNames(): the names of the helpers that this was compiled with, by id, without the prefix "bpf_".
static Napi::Value HelperNames(const Napi::CallbackInfo &info)
{
#define NAME(helper, ...) #helper
	static const char *const names[] = { __BPF_FUNC_MAPPER(NAME) };
#undef NAME
	List result(info.Env());
	uint32_t i = 0;
	for (const char *name : names)
		result.Set(i++, Text(info.Env(), name));
	return result.Value();
}

static Napi::Value Version(const Napi::CallbackInfo &info)
{
	return Text(info.Env(), libbpf_version_string());
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
	return Text(info.Env(), text);
}

void RegisterProbe(Napi::Env env, Napi::Object exports)
{
	Register<Names<MapTypeName>>(env, exports, "mapTypeNames");
	Register<Names<ProgramTypeName>>(env, exports, "programTypeNames");
	Register<ProbeProgramType>(env, exports, "probeProgramType");
	Register<ProbeMapType>(env, exports, "probeMapType");
	Register<ProbeHelper>(env, exports, "probeHelper");
	Register<HelperNames>(env, exports, "helperNames");
	Register<Version>(env, exports, "libbpfVersion");
	Register<PossibleCpus>(env, exports, "possibleCpus");
	Register<ErrorText>(env, exports, "errorText");
}
