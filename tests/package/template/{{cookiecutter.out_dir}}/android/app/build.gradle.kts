android {
    namespace = "{{ cookiecutter.bundle_id }}"
    packaging { jniLibs { excludes += listOf({% for abi in cookiecutter.options.android_excluded_abis %}"lib/{{ abi }}/**"{% endfor %}) } }
    defaultConfig {
        val resolvedMinSdk = {{ cookiecutter.pyproject.tool.flet.android.min_sdk_version }}
{%- if not cookiecutter.split_per_abi %}
        ndk { abiFilters += listOf({% for abi in cookiecutter.options.target_arch %}"{{ abi }}", {% endfor %}) }
{%- endif %}
    }
    buildTypes { release { signingConfig = signingConfigs.getByName("{{ 'release' if cookiecutter.options.android_signing else 'debug' }}") } }
}
