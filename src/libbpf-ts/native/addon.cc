// The addon: small functions over libbpf. Lengths, kinds and open handles are checked here as far as memory safety depends
// on them; what a caller may do is decided in lib/, which also words the errors. Functions return a negative errno on failure.
#include "log.h"
#include "register.h"

static Napi::Object Init(Napi::Env env, Napi::Object exports)
{
	CaptureLibbpfMessages();
	RegisterBtf(env, exports);
	RegisterInterface(env, exports);
	RegisterLink(env, exports);
	RegisterMap(env, exports);
	RegisterObject(env, exports);
	RegisterPin(env, exports);
	RegisterProbe(env, exports);
	RegisterProgram(env, exports);
	RegisterRingBuffer(env, exports);
	return exports;
}

NODE_API_MODULE(NODE_GYP_MODULE_NAME, Init)
