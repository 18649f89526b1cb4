#include "handle.h"
#include "register.h"

#include <cerrno>

// btfById(id): the raw BTF that the kernel holds under this id, as a Uint8Array, or a negative errno.
static Napi::Value BtfById(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	const int fd = bpf_btf_get_fd_by_id(Uint32(info[0]));
	if (fd < 0)
		return Number(env, -errno);
	Descriptor descriptor(fd);
	bpf_btf_info btf = {};
	uint32_t length = sizeof(btf);
	if (bpf_obj_get_info_by_fd(fd, &btf, &length))
		return Number(env, -errno);
	std::vector<uint8_t> bytes(btf.btf_size);
	bpf_btf_info whole = {};
	whole.btf = reinterpret_cast<uintptr_t>(bytes.data());
	whole.btf_size = btf.btf_size;
	length = sizeof(whole);
	if (bpf_obj_get_info_by_fd(fd, &whole, &length))
		return Number(env, -errno);
	return CopyOf(env, bytes.data(), bytes.size());
}

void RegisterBtf(Napi::Env env, Napi::Object exports)
{
	Register<BtfById>(env, exports, "btfById");
}
