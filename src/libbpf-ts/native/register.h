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
	exports.Set(name, Napi::Function::New<function>(env, name));
}
