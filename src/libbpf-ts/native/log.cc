#include "log.h"

#include <cstdarg>
#include <cstdio>

#include <bpf/libbpf.h>

static thread_local Log *current;

Log::Log() : outer_(current)
{
	current = this;
}

Log::~Log()
{
	current = outer_;
}

static int Print(libbpf_print_level level, const char *format, va_list arguments)
{
	if (level == LIBBPF_DEBUG || !current)
		return 0;
	va_list again;
	va_copy(again, arguments);
	const int length = vsnprintf(nullptr, 0, format, arguments);
	if (length > 0) {
		std::string &text = current->text;
		const size_t before = text.size();
		text.resize(before + length + 1);
		vsnprintf(&text[before], length + 1, format, again);
		text.resize(before + length);
	}
	va_end(again);
	return length;
}

void CaptureLibbpfMessages()
{
	libbpf_set_print(Print);
}
