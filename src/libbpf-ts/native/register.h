// Each file registers its own functions on the addon's exports.
#pragma once

#include <napi.h>

void RegisterBtf(Napi::Env env, Napi::Object exports);
void RegisterInterface(Napi::Env env, Napi::Object exports);
void RegisterLink(Napi::Env env, Napi::Object exports);
void RegisterMap(Napi::Env env, Napi::Object exports);
void RegisterObject(Napi::Env env, Napi::Object exports);
void RegisterPin(Napi::Env env, Napi::Object exports);
void RegisterProbe(Napi::Env env, Napi::Object exports);
void RegisterProgram(Napi::Env env, Napi::Object exports);
void RegisterRingBuffer(Napi::Env env, Napi::Object exports);

template <Napi::Value (*function)(const Napi::CallbackInfo &)>
void Register(Napi::Env env, Napi::Object exports, const char *name)
{
	const auto call = [](napi_env env, napi_callback_info raw) -> napi_value {
		const Napi::CallbackInfo info(env, raw);
		return function(info);
	};
	// The status is ignored as in value.h: it is not ok only in an environment that is going down.
	napi_value value = nullptr;
	if (napi_create_function(env, name, NAPI_AUTO_LENGTH, call, nullptr, &value) == napi_ok)
		napi_set_named_property(env, exports, name, value);
}
