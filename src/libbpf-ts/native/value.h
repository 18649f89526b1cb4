// Values from and to JavaScript, by Node-API's plain functions. node-addon-api's own turn each failure into an exception and
// end the process where none can be made; in a worker thread that is being terminated, which can begin between any two calls,
// every call that could run JavaScript fails. Here a failure leaves `undefined`, which nobody is there to see.
#pragma once

#include <cstring>
#include <string>

#include <napi.h>

inline Napi::Value Undefined(napi_env env)
{
	napi_value value = nullptr;
	napi_get_undefined(env, &value);
	return Napi::Value(env, value);
}

// The value, or undefined where making it failed. By reference: the call that gives the status sets the value, too, and which
// argument is evaluated first is the compiler's choice.
inline Napi::Value Made(napi_env env, napi_status status, const napi_value &value)
{
	return status == napi_ok ? Napi::Value(env, value) : Undefined(env);
}

inline Napi::Value Number(napi_env env, double n)
{
	napi_value value = nullptr;
	return Made(env, napi_create_double(env, n, &value), value);
}

inline Napi::Value Text(napi_env env, const std::string &text)
{
	napi_value value = nullptr;
	return Made(env, napi_create_string_utf8(env, text.data(), text.size(), &value), value);
}

inline Napi::Value Boolean(napi_env env, bool on)
{
	napi_value value = nullptr;
	return Made(env, napi_get_boolean(env, on, &value), value);
}

inline Napi::Value BigInt(napi_env env, uint64_t n)
{
	napi_value value = nullptr;
	return Made(env, napi_create_bigint_uint64(env, n, &value), value);
}

// A new Uint8Array (or, of 4-byte elements, Uint32Array) with these bytes.
inline Napi::Value CopyOf(napi_env env, const void *data, size_t size, napi_typedarray_type type = napi_uint8_array)
{
	void *memory = nullptr;
	napi_value buffer = nullptr, array = nullptr;
	napi_status status = napi_create_arraybuffer(env, size, &memory, &buffer);
	if (status != napi_ok)
		return Undefined(env);
	if (size)
		memcpy(memory, data, size);
	status = napi_create_typedarray(env, type, type == napi_uint8_array ? size : size / 4, buffer, 0, &array);
	return Made(env, status, array);
}

class Record
{
      public:
	explicit Record(napi_env env) : env_(env)
	{
		napi_create_object(env, &object_);
	}
	Record &Set(const char *name, napi_value value)
	{
		napi_set_named_property(env_, object_, name, value);
		return *this;
	}
	Record &Set(const char *name, uint32_t n)
	{
		return Set(name, Number(env_, n));
	}
	Record &Set(const char *name, const std::string &text)
	{
		return Set(name, Text(env_, text));
	}
	Record &SetBoolean(const char *name, bool on)
	{
		return Set(name, Boolean(env_, on));
	}
	Napi::Value Value() const
	{
		return Napi::Value(env_, object_);
	}

      private:
	const napi_env env_;
	napi_value object_ = nullptr;
};

class List
{
      public:
	explicit List(napi_env env) : env_(env)
	{
		napi_create_array(env, &array_);
	}
	void Set(uint32_t index, napi_value value)
	{
		napi_set_element(env_, array_, index, value);
	}
	Napi::Value Value() const
	{
		return Napi::Value(env_, array_);
	}

      private:
	const napi_env env_;
	napi_value array_ = nullptr;
};

inline Napi::Value Element(const Napi::Value &array, uint32_t index)
{
	napi_value value = nullptr;
	return Made(array.Env(), napi_get_element(array.Env(), array, index, &value), value);
}

// 0 where it is no number.
inline uint32_t Uint32(const Napi::Value &value)
{
	uint32_t n = 0;
	napi_get_value_uint32(value.Env(), value, &n);
	return n;
}

// False where it is no boolean.
inline bool Truth(const Napi::Value &value)
{
	bool on = false;
	napi_get_value_bool(value.Env(), value, &on);
	return on;
}

// Empty where it is no string.
inline std::string String(const Napi::Value &value)
{
	size_t length = 0;
	if (napi_get_value_string_utf8(value.Env(), value, nullptr, 0, &length) != napi_ok)
		return std::string();
	std::string text(length + 1, '\0');
	napi_get_value_string_utf8(value.Env(), value, &text[0], text.size(), &length);
	text.resize(length);
	return text;
}

struct Bytes {
	uint8_t *data;
	size_t size;
};

// A Uint8Array's memory, valid until control returns to JavaScript. Anything else is {nullptr, 0}.
inline Bytes BytesOf(const Napi::Value &value)
{
	bool is_array = false;
	if (napi_is_typedarray(value.Env(), value, &is_array) != napi_ok || !is_array)
		return { nullptr, 0 };
	napi_typedarray_type type;
	size_t length = 0;
	void *data = nullptr;
	const napi_status status =
		napi_get_typedarray_info(value.Env(), value, &type, &length, &data, nullptr, nullptr);
	if (status != napi_ok || type != napi_uint8_array)
		return { nullptr, 0 };
	return { static_cast<uint8_t *>(data), length };
}

// Throws a TypeError, to be returned from a function as its value.
inline Napi::Value Refuse(napi_env env, const char *why)
{
	napi_throw_type_error(env, nullptr, why);
	return Undefined(env);
}
