#include "handle.h"
#include "register.h"
#include "work.h"

#include <cerrno>
#include <string>

#include <bpf/libbpf.h>

const napi_type_tag Link::tag = { 0x6c1bbf5f6c696e6b, 0x51c2d09b6ee74a03 };

// A new link, or the errno that its making ended with.
struct NewLink {
	std::shared_ptr<Link> link;
	int error = 0;

	void Take(int fd)
	{
		if (fd < 0)
			error = -errno;
		else
			link = std::make_shared<Link>(fd);
	}
	Napi::Value Result(Napi::Env env) const
	{
		return link ? Wrap(env, link) : Number(env, error);
	}
};

// attachXdp(program, ifindex, XDP_FLAGS_*): a promise of a handle or a negative errno. Takes the RTNL lock.
static Napi::Value AttachXdp(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	auto program = Held<Program>(info[0]);
	if (!program)
		return Undefined(env);
	auto made = std::make_shared<NewLink>();
	return Work::Start(
		env,
		[made, program, ifindex = Uint32(info[1]), flags = Uint32(info[2])] {
			bpf_link_create_opts options = {};
			options.sz = sizeof(options);
			options.flags = flags;
			made->Take(bpf_link_create(program->fd(), static_cast<int>(ifindex), BPF_XDP, &options));
		},
		[made](Napi::Env env) { return made->Result(env); });
}

// attachIterator(program, map | undefined): a promise of a handle or a negative errno.
static Napi::Value AttachIterator(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	auto program = Held<Program>(info[0]);
	if (!program)
		return Undefined(env);
	std::shared_ptr<Map> map;
	if (!info[1].IsUndefined()) {
		map = Held<Map>(info[1]);
		if (!map)
			return Undefined(env);
	}
	auto made = std::make_shared<NewLink>();
	return Work::Start(
		env,
		[made, program, map] {
			bpf_iter_link_info target = {};
			bpf_link_create_opts options = {};
			options.sz = sizeof(options);
			if (map) {
				target.map.map_fd = map->fd();
				options.iter_info = &target;
				options.iter_info_len = sizeof(target);
			}
			made->Take(bpf_link_create(program->fd(), 0, BPF_TRACE_ITER, &options));
		},
		[made](Napi::Env env) { return made->Result(env); });
}

// updateLink(link, program, expected | undefined): a promise of 0 or a negative errno. Waits for an RCU grace period.
static Napi::Value Update(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	auto link = Held<Link>(info[0]);
	auto program = link ? Held<Program>(info[1]) : nullptr;
	if (!program)
		return Undefined(env);
	std::shared_ptr<Program> expected;
	if (!info[2].IsUndefined()) {
		expected = Held<Program>(info[2]);
		if (!expected)
			return Undefined(env);
	}
	auto result = std::make_shared<int>(0);
	return Work::Start(
		env,
		[link, program, expected, result] {
			bpf_link_update_opts options = {};
			options.sz = sizeof(options);
			if (expected) {
				options.flags = BPF_F_REPLACE;
				options.old_prog_fd = expected->fd();
			}
			*result = bpf_link_update(link->fd(), program->fd(), &options) ? -errno : 0;
		},
		[result](Napi::Env env) { return Number(env, *result); });
}

// detachLink(link): a promise of 0 or a negative errno.
static Napi::Value Detach(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	auto link = Held<Link>(info[0]);
	if (!link)
		return Undefined(env);
	auto result = std::make_shared<int>(0);
	return Work::Start(
		env, [link, result] { *result = bpf_link_detach(link->fd()) ? -errno : 0; },
		[result](Napi::Env env) { return Number(env, *result); });
}

static Napi::Value Info(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	auto link = Held<Link>(info[0]);
	if (!link)
		return Undefined(env);
	bpf_link_info kernel = {};
	uint32_t length = sizeof(kernel);
	if (bpf_obj_get_info_by_fd(link->fd(), &kernel, &length))
		return Number(env, -errno);
	Record object(env);
	object.Set("id", kernel.id);
	const char *type = libbpf_bpf_link_type_str(static_cast<bpf_link_type>(kernel.type));
	object.Set("type", type ? std::string(type) : "type_" + std::to_string(kernel.type));
	object.Set("programId", kernel.prog_id);
	if (kernel.type == BPF_LINK_TYPE_XDP)
		object.Set("ifindex", kernel.xdp.ifindex);
	return object.Value();
}

struct IteratorRun {
	std::string text;
	int error = 0;

	void Read(int link, size_t limit)
	{
		const int fd = bpf_iter_create(link);
		if (fd < 0) {
			error = -errno;
			return;
		}
		Descriptor iterator(fd);
		char part[32768];
		for (;;) {
			const ssize_t length = read(fd, part, sizeof(part));
			if (length == 0)
				return;
			// EAGAIN: the program made no output for a million elements (kernel/bpf/bpf_iter.c, bpf_seq_read).
			if (length < 0 && (errno == EAGAIN || errno == EINTR))
				continue;
			if (length < 0) {
				error = -errno;
				return;
			}
			if (text.size() + length > limit) {
				error = -EOVERFLOW;
				return;
			}
			text.append(part, length);
		}
	}
};

// readIterator(link, limit): a promise of the text of one run, as a Uint8Array, or a negative errno; -EOVERFLOW beyond `limit` bytes.
static Napi::Value ReadIterator(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	auto link = Held<Link>(info[0]);
	if (!link)
		return Undefined(env);
	auto run = std::make_shared<IteratorRun>();
	return Work::Start(
		env, [link, run, limit = Uint32(info[1])] { run->Read(link->fd(), limit); },
		[run](Napi::Env env) -> Napi::Value {
			if (run->error)
				return Number(env, run->error);
			return CopyOf(env, run->text.data(), run->text.size());
		});
}

void RegisterLink(Napi::Env env, Napi::Object exports)
{
	Register<AttachXdp>(env, exports, "attachXdp");
	Register<AttachIterator>(env, exports, "attachIterator");
	Register<Update>(env, exports, "updateLink");
	Register<Detach>(env, exports, "detachLink");
	Register<Info>(env, exports, "linkInfo");
	Register<ReadIterator>(env, exports, "readIterator");
}
