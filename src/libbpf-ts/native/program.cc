#include "handle.h"
#include "register.h"
#include "work.h"

#include <cerrno>
#include <cstdio>
#include <cstring>

const napi_type_tag Program::tag = { 0x6c1bbf5f70726f67, 0x3f0e8a5d17c94b02 };

static Napi::Value Info(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	auto program = Held<Program>(info[0]);
	if (!program)
		return Undefined(env);
	bpf_prog_info kernel = {};
	uint32_t length = sizeof(kernel);
	if (bpf_obj_get_info_by_fd(program->fd(), &kernel, &length))
		return Number(env, -errno);
	std::vector<uint32_t> map_ids(kernel.nr_map_ids);
	bpf_prog_info with_maps = {};
	with_maps.nr_map_ids = map_ids.size();
	with_maps.map_ids = reinterpret_cast<uintptr_t>(map_ids.data());
	length = sizeof(with_maps);
	if (!map_ids.empty() && bpf_obj_get_info_by_fd(program->fd(), &with_maps, &length))
		return Number(env, -errno);
	Record object(env);
	object.Set("type", kernel.type);
	object.Set("id", kernel.id);
	object.Set("name", kernel.name);
	char tag[2 * BPF_TAG_SIZE + 1];
	for (int i = 0; i < BPF_TAG_SIZE; i++)
		snprintf(tag + 2 * i, 3, "%02x", kernel.tag[i]);
	object.Set("tag", tag);
	object.Set("loadTimeNs", BigInt(env, kernel.load_time));
	List ids(env);
	for (uint32_t i = 0; i < map_ids.size(); i++)
		ids.Set(i, Number(env, map_ids[i]));
	object.Set("mapIds", ids.Value());
	object.Set("verifiedInstructions", kernel.verified_insns);
	object.Set("jitedBytes", kernel.jited_prog_len);
	object.Set("translatedBytes", kernel.xlated_prog_len);
	return object.Value();
}

// Everything that one run reads and writes, in memory of its own: the caller may do what it likes with its buffers meanwhile.
struct TestRun {
	std::shared_ptr<Program> program;
	std::vector<uint8_t> data, context, data_out, context_out;
	bpf_test_run_opts options = {};
	int error = 0;

	void Run()
	{
		options.sz = sizeof(options);
		options.data_in = data.empty() ? nullptr : data.data();
		options.data_size_in = data.size();
		options.data_out = data_out.empty() ? nullptr : data_out.data();
		options.data_size_out = data_out.size();
		options.ctx_in = context.empty() ? nullptr : context.data();
		options.ctx_size_in = context.size();
		options.ctx_out = context_out.empty() ? nullptr : context_out.data();
		options.ctx_size_out = context_out.size();
		error = bpf_prog_test_run_opts(program->fd(), &options) ? -errno : 0;
	}

	Napi::Value Result(Napi::Env env) const
	{
		if (error)
			return Number(env, error);
		Record object(env);
		object.Set("returnValue", options.retval);
		object.Set("durationNs", options.duration);
		// The kernel says how much it had, which is more than it wrote where the buffer was too small.
		object.Set("data",
			   CopyOf(env, data_out.data(), std::min<size_t>(options.data_size_out, data_out.size())));
		// A syscall program's context is written back over what went in.
		object.Set("context", context_out.empty() ?
					      CopyOf(env, context.data(), context.size()) :
					      CopyOf(env, context_out.data(),
						     std::min<size_t>(options.ctx_size_out, context_out.size())));
		return object.Value();
	}
};

static std::vector<uint8_t> VectorOf(const Napi::Value &value)
{
	const Bytes bytes = BytesOf(value);
	return std::vector<uint8_t>(bytes.data, bytes.data + bytes.size);
}

// (program, data | undefined, context | undefined, dataOutSize, contextOutSize, repeat, flags, cpu, batchSize)
static std::shared_ptr<TestRun> Prepare(const Napi::CallbackInfo &info)
{
	auto run = std::make_shared<TestRun>();
	run->program = Held<Program>(info[0]);
	if (!run->program)
		return nullptr;
	run->data = VectorOf(info[1]);
	run->context = VectorOf(info[2]);
	run->data_out.resize(Uint32(info[3]));
	run->context_out.resize(Uint32(info[4]));
	run->options.repeat = static_cast<int>(Uint32(info[5]));
	run->options.flags = Uint32(info[6]);
	run->options.cpu = Uint32(info[7]);
	run->options.batch_size = Uint32(info[8]);
	return run;
}

// testRun(...): {returnValue, durationNs, data, context} or a negative errno.
static Napi::Value RunNow(const Napi::CallbackInfo &info)
{
	auto run = Prepare(info);
	if (!run)
		return Undefined(info.Env());
	run->Run();
	return run->Result(info.Env());
}

// testRunAsync(...): a promise of the same.
static Napi::Value RunOnThreadPool(const Napi::CallbackInfo &info)
{
	auto run = Prepare(info);
	if (!run)
		return Undefined(info.Env());
	return Work::Start(info.Env(), [run] { run->Run(); }, [run](Napi::Env env) { return run->Result(env); });
}

void RegisterProgram(Napi::Env env, Napi::Object exports)
{
	Register<Info>(env, exports, "programInfo");
	Register<RunNow>(env, exports, "testRun");
	Register<RunOnThreadPool>(env, exports, "testRunAsync");
}
