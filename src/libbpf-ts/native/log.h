// libbpf's messages of warning level and above, the verifier's log among them, that this thread causes while a Log lives.
#pragma once

#include <string>

class Log
{
      public:
	Log();
	~Log();
	Log(const Log &) = delete;
	Log &operator=(const Log &) = delete;
	std::string text;

      private:
	Log *const outer_;
};

// Directs libbpf's messages to the calling thread's Log, and nowhere where it has none. For the whole process.
void CaptureLibbpfMessages();
