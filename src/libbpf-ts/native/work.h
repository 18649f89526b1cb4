// Work for libuv's thread pool: `run` there, then `finish` on the environment's own thread, whose value settles the promise.
#pragma once

#include <csignal>
#include <functional>

#include <napi.h>

class Work final : public Napi::AsyncWorker
{
      public:
	using Run = std::function<void()>;
	using Finish = std::function<Napi::Value(Napi::Env)>;

	static Napi::Value Start(Napi::Env env, Run run, Finish finish)
	{
		napi_value promise;
		auto *work = new Work(env, std::move(run), std::move(finish));
		if (napi_create_promise(env, &work->deferred_, &promise) != napi_ok) {
			delete work;
			return Napi::Value();
		}
		work->Queue();
		return Napi::Value(env, promise);
	}

      private:
	Work(Napi::Env env, Run run, Finish finish)
	    : Napi::AsyncWorker(env), run_(std::move(run)), finish_(std::move(finish))
	{
	}
	void Execute() override
	{
		// A signal would end a test run between two repeats and send the verifier back to its beginning. There are
		// other threads to take it.
		sigset_t all, before;
		sigfillset(&all);
		pthread_sigmask(SIG_SETMASK, &all, &before);
		run_();
		pthread_sigmask(SIG_SETMASK, &before, nullptr);
	}
	void OnOK() override
	{
		// The status is ignored on purpose: it is not ok only where the environment is going down, and what the
		// work produced is owned by shared_ptrs either way.
		napi_resolve_deferred(Env(), deferred_, finish_(Env()));
	}

	napi_deferred deferred_ = nullptr;
	const Run run_;
	const Finish finish_;
};
